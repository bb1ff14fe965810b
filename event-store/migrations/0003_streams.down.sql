drop function event_store.streams(text, text[], bigint[]);
