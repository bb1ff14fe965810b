drop function event_store.append(
    text[], text[], bigint[], integer[], integer[], uuid[], text[], bytea[], boolean[], text[], boolean[],
    integer[], bigint[], text[], text[], json[], json[], smallint[], integer[], text[], bytea[], boolean[],
    bigint, timestamptz, boolean);
drop function event_store.append_classified(
    bigint, timestamptz, text[], text[], bigint[], integer[], uuid[], text[], bytea[], boolean[], text[], boolean[],
    integer[], bigint[], text[], text[], json[], json[], smallint[], integer[], text[], bytea[], boolean[]);
