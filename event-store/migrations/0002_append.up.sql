-- Appends the events of many commands in one commit. A bad command never spoils the batch.
--
-- In: one entry per command (c_*; commands of one aggregate in the order of their decision, each
-- expecting the version its predecessor leaves; c_last counts the events up to its end), one per event
-- (e_command is the ordinal of its command, from 1), one per claim. A command without events asks only
-- that its version still holds; a refused one leaves a row only when its answer comes with it.
-- Out: on success of all, one row with ordinal 0, the head before the batch, when its rows were inserted and when the
-- batch before it was committed; otherwise one row per command. Outcomes: 0 appended, 1 duplicate
-- (with what the first one left), 2 conflict, 3 claim taken (with its scope).
--
-- The caller rests on an event it has seen at a position, if on any: when the log does not hold this very event,
-- because it was taken back to an earlier state, nothing is written and no row comes back.
--
-- Nothing is notified here: a commit that notifies holds one lock of the whole server until it is flushed, and
-- the logs of all services would commit one after the other.
--
-- Payloads come as json, not as text to be cast: so they are parsed with the arguments, before the lock.
--
-- It is a function of several statements because a single statement's snapshot would be older than
-- the lock, and what it sees of the log stale.
--
-- Inserting is under one lock, committing under another that is taken before the first is given back. While a batch
-- is flushed the next one inserts, behind a head that is not yet visible. So what the caller writes is committed
-- after what stands before it, or written anew behind what does. Who comes alone, as nothing else of his is on its
-- way, takes both locks at once, which is simpler. It must be called in autocommit: until the commit nobody else can.
create function event_store.append(
    c_type text[], c_aggregate text[], c_expected bigint[], c_events integer[], c_last integer[],
    c_command uuid[], c_principal text[], c_fingerprint bytea[], c_refused boolean[],
    c_answer text[], c_derived boolean[],
    e_command integer[], e_sequence bigint[], e_type text[], e_version text[], e_payload json[],
    e_metadata json[], e_partition smallint[],
    k_command integer[], k_scope text[], k_key bytea[], k_take boolean[],
    seen_position bigint, seen_at timestamptz, alone boolean
) returns table (
    ordinal integer, outcome smallint, head bigint, recorded timestamptz, inserted timestamptz, turn timestamptz,
    first_type text, first_aggregate text, first_sequence bigint, first_position bigint,
    first_refused boolean, first_fingerprint bytea, first_answer text, claim_scope text
)
    language plpgsql
    -- A session keeps the plans of its first calls. Made while the log is short they would read the whole
    -- table for its head, and go on doing so when it has grown.
    set enable_seqscan = off
    set enable_bitmapscan = off
    -- The planner would plan for each batch anew, because few rows come with it: that takes as long as the batch.
    set plan_cache_mode = force_generic_plan
as
$$
#variable_conflict use_column
declare
    v_head  bigint;
    v_now   timestamptz;
    v_done  timestamptz;
    v_held  boolean := false;
    -- What asks whether a version still holds, or whether a command is known, must see the batch before it.
    v_alone boolean := alone or 0 = any(c_events) or true = any(c_refused);
    v_stale boolean := false;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'append needs read committed isolation';
    end if;
    if v_alone then
        -- What keep_writers_out does, without a call for each batch; and not in the block below, which loses what it
        -- takes when it fails.
        perform pg_advisory_xact_lock(event_store.insert_lock()), pg_advisory_xact_lock(event_store.log_lock());
    end if;
    loop
        begin
            if not v_alone then
                -- The session's, to be given back before the commit. A caller drops its session after any error, as a
                -- cancel can come where nothing here notices it.
                select true into v_held from pg_advisory_lock(event_store.insert_lock());
            elsif v_held then
                perform pg_advisory_xact_lock(event_store.log_lock());
            end if;
            select coalesce(max(e.position), 0) into v_head from event_store.events e;
            if not v_alone then
                -- What is given out, but not committed, is in no table.
                select greatest(v_head, h.last_value) into v_head from event_store.head h;
            end if;
            if seen_position is not null then
                perform from event_store.events e where e.position = seen_position and e.recorded_at = seen_at;
                if not found then
                    if v_held then
                        perform pg_advisory_unlock(event_store.insert_lock());
                    end if;
                    return;
                end if;
            end if;
            v_now := clock_timestamp();

            if 0 = any(c_events) then
                select exists (
                    select
                    from (select c.*, coalesce(sum(c.events) over (partition by c.type, c.aggregate order by c.ordinal
                              rows between unbounded preceding and 1 preceding), 0) as before
                          from unnest(c_type, c_aggregate, c_expected, c_events)
                              with ordinality as c(type, aggregate, expected, events, ordinal)) c
                    left join lateral (
                        select e.sequence from event_store.events e
                        where e.aggregate_type = c.type and e.aggregate_id = c.aggregate
                        order by e.sequence desc limit 1
                    ) v on true
                    where c.events = 0 and c.expected <> coalesce(v.sequence, 0) + c.before
                ) into v_stale;
                exit when v_stale;
            end if;

            if true = any(c_refused) then
                -- A refusal without an answer leaves no row; but it may be a copy of a command that was accepted.
                select exists (
                    select from unnest(c_command, c_refused) as c(command, refused)
                    join event_store.commands known on known.command_id = c.command
                    where c.refused
                ) into v_stale;
                exit when v_stale;
            end if;

            -- Arrays that are unnested in the select list are read in step; in the from list each would be
            -- copied to a table of its own first.
            insert into event_store.events
            select v_head + e.ordinal, c_type[e.command], c_aggregate[e.command], e.sequence, e.type, e.version,
                   e.payload, e.metadata, e.partition, v_now
            from (select generate_series(1, cardinality(e_command)) as ordinal, unnest(e_command) as command,
                         unnest(e_sequence) as sequence, unnest(e_type) as type, unnest(e_version) as version,
                         unnest(e_payload) as payload, unnest(e_metadata) as metadata,
                         unnest(e_partition) as partition) e;
            if cardinality(k_command) > 0 then
                delete from event_store.claims k
                using unnest(k_command, k_scope, k_key, k_take) as r(command, scope, key, take)
                where not r.take and k.scope = r.scope and k.key = r.key and k.owner = c_aggregate[r.command];
                insert into event_store.claims
                select r.scope, r.key, c_aggregate[r.command]
                from unnest(k_command, k_scope, k_key, k_take) as r(command, scope, key, take) where r.take;
            end if;
            if cardinality(array_remove(c_command, null)) > 0 then
                insert into event_store.commands
                select c.command, c.principal, c.fingerprint, c.type, c.aggregate, c.expected + c.events,
                       v_head + c.last, c.refused, c.answer::json, c.derived, v_now
                from (select unnest(c_command) as command, unnest(c_principal) as principal,
                             unnest(c_fingerprint) as fingerprint, unnest(c_type) as type,
                             unnest(c_aggregate) as aggregate, unnest(c_expected) as expected,
                             unnest(c_events) as events, unnest(c_last) as last, unnest(c_refused) as refused,
                             unnest(c_answer) as answer, unnest(c_derived) as derived) c
                where c.command is not null and not (c.refused and c.answer is null);
            end if;

            v_done := clock_timestamp();
            if not v_alone then
                -- Once the batch before is committed, what it wrote is seen. Otherwise it came to nothing, and what
                -- is here would stand behind a hole.
                perform pg_advisory_xact_lock(event_store.log_lock());
                if v_head > 0 then
                    perform from event_store.events e where e.position = v_head;
                    if not found then
                        raise sqlstate 'MT003';
                    end if;
                end if;
            end if;
            if v_held then
                perform setval('event_store.head', v_head + cardinality(e_command));
                perform pg_advisory_unlock(event_store.insert_lock());
            end if;
            return query select 0, 0::smallint, v_head, v_now, v_done, clock_timestamp(), null::text, null::text,
                null::bigint, null::bigint, null::boolean, null::bytea, null::text, null::text;
            return;
        exception
            when unique_violation then
                exit; -- classified below, still under the lock
            when sqlstate 'MT003' then
                v_alone := true; -- once more, from where the log really ends
            when query_canceled or others then
                if v_held then
                    perform pg_advisory_unlock(event_store.insert_lock());
                end if;
                raise;
        end;
    end loop;

    begin
        perform event_store.keep_writers_out();
        select coalesce(max(e.position), 0) into v_head from event_store.events e;
        v_now := clock_timestamp();
        return query select c.ordinal, c.outcome, c.head, c.recorded, null::timestamptz, null::timestamptz,
            c.first_type, c.first_aggregate, c.first_sequence, c.first_position, c.first_refused, c.first_fingerprint,
            c.first_answer, c.claim_scope
        from event_store.append_classified(
            v_head, v_now, c_type, c_aggregate, c_expected, c_events, c_command, c_principal, c_fingerprint,
            c_refused, c_answer, c_derived, e_command, e_sequence, e_type, e_version, e_payload, e_metadata,
            e_partition, k_command, k_scope, k_key, k_take) c;
        if v_held then
            perform pg_advisory_unlock(event_store.insert_lock());
        end if;
    exception
        when query_canceled or others then
            if v_held then
                perform pg_advisory_unlock(event_store.insert_lock());
            end if;
            raise;
    end;
end
$$;

-- The slow path of append, under its locks: tells the commands apart and inserts the good ones.
create function event_store.append_classified(
    v_head bigint, v_now timestamptz,
    c_type text[], c_aggregate text[], c_expected bigint[], c_events integer[],
    c_command uuid[], c_principal text[], c_fingerprint bytea[], c_refused boolean[],
    c_answer text[], c_derived boolean[],
    e_command integer[], e_sequence bigint[], e_type text[], e_version text[], e_payload json[],
    e_metadata json[], e_partition smallint[],
    k_command integer[], k_scope text[], k_key bytea[], k_take boolean[]
) returns table (
    ordinal integer, outcome smallint, head bigint, recorded timestamptz,
    first_type text, first_aggregate text, first_sequence bigint, first_position bigint,
    first_refused boolean, first_fingerprint bytea, first_answer text, claim_scope text
)
    language plpgsql as
$$
#variable_conflict use_column
declare
    v_outcome smallint[];
    v_scope   text[];
begin
    with c as (
        select * from unnest(c_type, c_aggregate, c_expected, c_events, c_command)
            with ordinality as c(type, aggregate, expected, events, command, ordinal)
    ), taken as (
        -- a claim somebody else holds, unless the same command gives it up
        select k.command, min(k.scope) as scope
        from unnest(k_command, k_scope, k_key, k_take) as k(command, scope, key, take)
        join event_store.claims held on held.scope = k.scope and held.key = k.key
        where k.take and not exists (
            select from unnest(k_command, k_scope, k_key, k_take) as r(command, scope, key, take)
            where r.command = k.command and not r.take and r.scope = k.scope and r.key = k.key
              and held.owner = c_aggregate[r.command])
        group by k.command
    ), contested as (
        -- two commands of this batch want the same claim: the first may have it
        select k.command
        from (select k.command, row_number() over (partition by k.scope, k.key order by k.command) as turn
              from unnest(k_command, k_scope, k_key, k_take) as k(command, scope, key, take) where k.take) k
        where k.turn > 1 group by k.command
    ), judged as (
        select c.*,
               known.command_id is not null as duplicate,
               c.command is not null and row_number() over (partition by c.command order by c.ordinal) > 1 as repeated,
               taken.scope,
               contested.command is not null as contested,
               coalesce(v.sequence, 0) as current,
               coalesce(sum(c.events) over stream_before, 0) as before
        from c
        left join event_store.commands known on known.command_id = c.command
        left join taken on taken.command = c.ordinal
        left join contested on contested.command = c.ordinal
        left join lateral (
            select e.sequence from event_store.events e
            where e.aggregate_type = c.type and e.aggregate_id = c.aggregate
            order by e.sequence desc limit 1
        ) v on true
        window stream_before as (partition by c.type, c.aggregate order by c.ordinal
                                 rows between unbounded preceding and 1 preceding)
    ), chained as (
        select j.*,
               coalesce(bool_or(j.events > 0 and (j.duplicate or j.repeated or j.contested or j.scope is not null))
                        over (partition by j.type, j.aggregate order by j.ordinal
                              rows between unbounded preceding and 1 preceding), false) as broken
        from judged j
    ), verdicts as (
        select j.ordinal, j.scope,
               case when j.duplicate then 1
                    when j.broken or j.expected <> j.current + j.before or j.repeated then 2
                    when j.scope is not null then 3
                    when j.contested then 2
                    else 0 end as verdict
        from chained j
    )
    select array_agg(v.verdict::smallint order by v.ordinal), array_agg(v.scope order by v.ordinal)
    into v_outcome, v_scope from verdicts v;

    insert into event_store.events
    select v_head + row_number() over (order by e.ordinal), c_type[e.command], c_aggregate[e.command], e.sequence,
           e.type, e.version, e.payload, e.metadata, e.partition, v_now
    from unnest(e_command, e_sequence, e_type, e_version, e_payload, e_metadata, e_partition)
        with ordinality as e(command, sequence, type, version, payload, metadata, partition, ordinal)
    where v_outcome[e.command] = 0;

    delete from event_store.claims k
    using unnest(k_command, k_scope, k_key, k_take) as r(command, scope, key, take)
    where not r.take and v_outcome[r.command] = 0
      and k.scope = r.scope and k.key = r.key and k.owner = c_aggregate[r.command];
    insert into event_store.claims
    select r.scope, r.key, c_aggregate[r.command]
    from unnest(k_command, k_scope, k_key, k_take) as r(command, scope, key, take)
    where r.take and v_outcome[r.command] = 0;

    insert into event_store.commands
    select c.command, c.principal, c.fingerprint, c.type, c.aggregate, c.expected + c.events,
           v_head + c.last, c.refused, c.answer::json, c.derived, v_now
    from (select c.*, sum(c.events) over (order by c.ordinal) as last
          from unnest(c_type, c_aggregate, c_expected, c_events, c_command, c_principal, c_fingerprint,
                      c_refused, c_answer, c_derived)
              with ordinality as c(type, aggregate, expected, events, command, principal, fingerprint,
                                   refused, answer, derived, ordinal)
          where v_outcome[c.ordinal] = 0) c
    where c.command is not null and not (c.refused and c.answer is null);

    return query
        select c.ordinal::integer, v_outcome[c.ordinal], v_head, v_now,
               known.aggregate_type, known.aggregate_id, known.sequence, known.position, known.refused,
               known.fingerprint, known.answer::text, v_scope[c.ordinal]
        from unnest(c_command) with ordinality as c(command, ordinal)
        left join event_store.commands known on v_outcome[c.ordinal] = 1 and known.command_id = c.command
        order by c.ordinal;
end
$$;
