-- The events of several streams, each from a sequence on, in the order of the streams and their events. The settings
-- are those of append, for the same reason: a plan made while the log is short must not read all of it, nor hash it,
-- when it has grown.
create function event_store.streams(wanted_type text, wanted_ids text[], wanted_from bigint[]) returns table (
    "position" bigint, partition smallint, aggregate_type text, aggregate_id text, sequence bigint, event_type text,
    event_version text, payload text, metadata text, recorded_at timestamptz
)
    language plpgsql stable
    set enable_seqscan = off
    set enable_bitmapscan = off
    set enable_hashjoin = off
    set enable_mergejoin = off
as
$$
#variable_conflict use_column
begin
    return query
        select e.position, e.partition, e.aggregate_type, e.aggregate_id, e.sequence, e.event_type, e.event_version,
               e.payload::text, e.metadata::text, e.recorded_at
        from unnest(wanted_ids, wanted_from) as wanted(id, since)
        join event_store.events e
          on e.aggregate_type = wanted_type and e.aggregate_id = wanted.id and e.sequence >= wanted.since
        order by e.aggregate_id, e.sequence;
end
$$;
