drop function event_store.holds(bigint, timestamptz);
