-- The log of one service and what the engine keeps beside it. Positions are dense and in commit
-- order: nobody commits who has not seen the event before its own first one, and one commit at a time is
-- flushed and made visible, so a reader that has seen position n has seen everything below n.
create schema event_store;

create table event_store.events (
    position       bigint      primary key,
    -- Bytewise, whatever the database's language: names and ids have no other order, and it is the fastest.
    aggregate_type text        collate "C" not null,
    aggregate_id   text        collate "C" not null,
    sequence       bigint      not null check (sequence >= 1),
    event_type     text        not null,
    event_version  text        not null,
    payload        json        not null,
    metadata       json        not null,
    partition      smallint    not null,
    recorded_at    timestamptz not null,
    -- The id comes first: it tells two keys apart, and the type, which most have in common, need not be compared.
    constraint events_stream_key unique (aggregate_id, aggregate_type, sequence)
);

-- What has happened is not changed: not by a mistake, and not by hand.
create function event_store.refuse_change() returns trigger language plpgsql as
$$
begin
    raise exception 'events are only ever added: % is refused', lower(tg_op) using errcode = 'MT002';
end
$$;

create trigger events_are_only_added
    before update or delete or truncate on event_store.events
    for each statement execute function event_store.refuse_change();

create table event_store.claims (
    scope text  not null,
    key   bytea not null,
    owner text  not null,
    primary key (scope, key)
);

create table event_store.commands (
    command_id     uuid        primary key,
    principal      text        not null,
    fingerprint    bytea       not null,
    aggregate_type text        not null,
    aggregate_id   text        not null,
    sequence       bigint      not null,
    position       bigint      not null,
    refused        boolean     not null,
    answer         json,
    derived        boolean     not null,
    created_at     timestamptz not null
);
-- Derived commands are most of them, and need no index beside the one they have: their ids begin with the time of what
-- they were derived from.
create index commands_created_at on event_store.commands (created_at) where not derived;

-- The column names are those of postgres-es, so that its repository reads and writes them too.
create table event_store.snapshots (
    aggregate_type   text   not null,
    aggregate_id     text   not null,
    last_sequence    bigint not null check (last_sequence >= 0),
    current_snapshot bigint not null check (current_snapshot >= 0),
    payload          json   not null,
    primary key (aggregate_type, aggregate_id)
);

-- A long state is kept as it is: to compress it takes longer than to write it.
alter table event_store.snapshots alter payload set storage external;

create table event_store.checkpoints (
    subscription text        not null,
    source       text        not null,
    partition    smallint    not null,
    position     bigint      not null,
    moved_at     timestamptz not null default clock_timestamp(),
    primary key (subscription, source, partition)
);

-- Ends a statement that rests on something else than what is there; nothing of it is done then.
create function event_store.require(holds boolean) returns void language plpgsql as
$$
begin
    if not holds then
        raise exception 'the checkpoints are elsewhere' using errcode = 'MT001';
    end if;
end
$$;

create table event_store.relay (
    source   text   primary key,
    position bigint not null
);

-- A lease names one owner of a piece of work until it expires by the database's clock, or until the session of its
-- owner ends: `guard` is an advisory lock that this session holds.
create table event_store.leases (
    name       text        primary key,
    owner      uuid        not null,
    expires_at timestamptz not null,
    guard      bigint      not null
);

create table event_store.parked (
    subscription   text        not null,
    source         text        not null,
    position       bigint      not null,
    partition      smallint    not null,
    aggregate_type text        not null,
    aggregate_id   text        not null,
    event_type     text        not null,
    error          text        not null,
    attempts       integer     not null,
    parked_at      timestamptz not null default clock_timestamp(),
    primary key (subscription, source, position)
);
create index parked_stream on event_store.parked (subscription, source, aggregate_type, aggregate_id, position);

create table event_store.timers (
    id        uuid        primary key,
    queue     text        not null,
    due_at    timestamptz not null,
    command   json        not null,
    attempts  integer     not null default 0,
    last_error text
);
create index timers_due on event_store.timers (queue, due_at);

-- A key that is null has been destroyed: what it sealed is gone, and nothing is sealed for that person again.
create table event_store.personal_keys (
    person      uuid        primary key,
    wrapped_key bytea,
    created_at  timestamptz not null default clock_timestamp()
);

create table event_store.read_models (
    name       text        not null,
    version    text        not null,
    -- What was rebuilt up to a point in the past is kept until it is dropped.
    status     text        not null check (status in ('building', 'live', 'retired', 'kept')),
    changed_at timestamptz not null default clock_timestamp(),
    primary key (name, version)
);
-- How many generations of a read model were ever begun: the number of one that was dropped is not given again, because
-- whoever built it may go on for a moment.
create table event_store.read_model_builds (
    name  text    primary key,
    build integer not null
);
create unique index read_models_live on event_store.read_models (name) where status = 'live';

-- Two numbers name this log among the advisory locks of its database. A writer holds the first while it inserts,
-- and takes the second before it gives the first back, until its commit is flushed and visible: so the next one
-- inserts while this one flushes, and they commit in the order of their positions.
create function event_store.insert_lock() returns bigint
    language sql immutable parallel safe as 'select 7308332045843000';
create function event_store.log_lock() returns bigint
    language sql immutable parallel safe as 'select 7308332045843001';

-- Waits until whatever is being written is committed, or is not, and keeps all writers out until the transaction
-- ends. What is there can be read by the next statement.
create function event_store.keep_writers_out() returns void
    language sql as
$$
select pg_advisory_xact_lock(event_store.insert_lock());
select pg_advisory_xact_lock(event_store.log_lock());
$$;

-- The last position that was given to an event whose commit may be on its way. It is a hint: nobody commits without
-- having seen the event before its own, and what is committed behind it counts. A sequence, because others can
-- read its value before the commit; and none is drawn from it, so no position is lost by a rollback.
create sequence event_store.head as bigint minvalue 0 start 0;

-- The partition of an aggregate, on the topic and in every checkpoint, fixed for ever: the first
-- 28 bits of the MD5 of its id, modulo 12.
create function event_store.partition_of(aggregate_id text) returns smallint
    language sql immutable parallel safe as
$$ select (('x' || left(md5(aggregate_id), 7))::bit(28)::integer % 12)::smallint $$;

-- Writers that know only the columns of postgres-es get their position, partition and time here.
create function event_store.place_foreign_event() returns trigger
    language plpgsql as
$$
begin
    perform event_store.keep_writers_out();
    select coalesce(max(position), 0) + 1 into new.position from event_store.events;
    if new.sequence > 1 and not exists (
        select from event_store.events e
        where e.aggregate_type = new.aggregate_type and e.aggregate_id = new.aggregate_id
          and e.sequence = new.sequence - 1
    ) then
        raise unique_violation using message = 'sequence ' || new.sequence || ' of '
            || new.aggregate_type || ' ' || new.aggregate_id || ' has no predecessor';
    end if;
    new.partition := event_store.partition_of(new.aggregate_id);
    new.recorded_at := clock_timestamp();
    perform pg_notify('mart_log', new.position::text);
    return new;
end
$$;

create trigger place_foreign_event
    before insert on event_store.events
    for each row when (new.position is null)
    execute function event_store.place_foreign_event();
