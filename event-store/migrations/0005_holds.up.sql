-- Whether the log holds the event that somebody has seen at a position. A log that was taken back to an earlier
-- state does not, even when another event has got that position since. The settings are those of append, for the
-- same reason: a plan made while the log is short must not read all of it when it has grown.
create function event_store.holds(seen_position bigint, seen_at timestamptz) returns boolean
    language plpgsql stable
    set enable_seqscan = off
    set enable_bitmapscan = off
as
$$
begin
    return seen_position is null or exists (
        select from event_store.events e where e.position = seen_position and e.recorded_at = seen_at
    );
end
$$;
