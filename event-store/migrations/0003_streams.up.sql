-- The events of several streams, each from a sequence on, stream after stream in their order.
--
-- The settings are those of append, for the same reason: a session keeps the plan it makes while the log is short.
-- A lateral query that nothing can be pulled out of leaves one plan only, which looks into the index once for each
-- stream; as a join, all streams of the type would be read and compared with those that are wanted.
create function event_store.streams(wanted_type text, wanted_ids text[], wanted_from bigint[]) returns table (
    "position" bigint, partition smallint, aggregate_type text, aggregate_id text, sequence bigint, event_type text,
    event_version text, payload text, metadata text, recorded_at timestamptz
)
    language plpgsql stable
    set enable_seqscan = off
    set enable_bitmapscan = off
    -- The planner would plan for each array anew, which takes longer than reading what few streams are asked for.
    set plan_cache_mode = force_generic_plan
as
$$
#variable_conflict use_column
begin
    return query
        select e.*
        from unnest(wanted_ids, wanted_from) as wanted(id, since), lateral (
            select e.position, e.partition, e.aggregate_type, e.aggregate_id, e.sequence, e.event_type,
                   e.event_version, e.payload::text, e.metadata::text, e.recorded_at
            from event_store.events e
            where e.aggregate_type = wanted_type and e.aggregate_id = wanted.id and e.sequence >= wanted.since
            order by e.sequence
            offset 0
        ) e;
end
$$;
