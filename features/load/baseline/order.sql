-- What an order costs the raw database, for pgbench: ten commits one after the other, as an order has steps, with 20 events
-- and 17 rows of commands in the tables of the mart, and a row of a read model that changes with every other step. Nothing is
-- decided, no conflict found, no hole kept out of the positions; there is no HTTP, no broker, and no letter.
--
--   createdb raw && psql -f event-store/migrations/0001_event_store.up.sql -f features/load/baseline/setup.sql raw
--   pgbench -n -M prepared -f features/load/baseline/order.sql -c 64 -R 500 -T 25 -l raw
--
-- The log that -l writes has the latency of each order in microseconds, from when it was due.
\set order random(1, 1000000000)
\set suffix random(1, 1000000000)
begin;
insert into event_store.events
select nextval('positions'), 'order', lpad(to_hex(:order::bigint), 12, '0') || '-' || lpad(to_hex(:suffix::bigint), 20, '0'),
       0 + step, 'Event', '1.0', json_build_object('text', repeat('x', 230)),
       '{"event_id":"019aa000-0000-7abc-8def-0123456789ab","correlation_id":"019aa000-0000-7abc-8def-0123456789ab","causation_id":"019aa000-0000-7abc-8def-0123456789ab"}'::json,
       3::smallint, clock_timestamp()
from generate_series(1, 2) step;
insert into event_store.commands
select gen_random_uuid(), 'checkout', '', 'order', lpad(to_hex(:order::bigint), 36, '0'), 1, 1, false, null, true,
       clock_timestamp()
from generate_series(1, 2);
insert into order_rows values (:order::bigint, 'step', 2, json_build_object('text', repeat('x', 230)))
on conflict (id) do update set events = excluded.events, body = excluded.body;
commit;
begin;
insert into event_store.events
select nextval('positions'), 'order', lpad(to_hex(:order::bigint), 12, '0') || '-' || lpad(to_hex(:suffix::bigint), 20, '0'),
       2 + step, 'Event', '1.0', json_build_object('text', repeat('x', 230)),
       '{"event_id":"019aa000-0000-7abc-8def-0123456789ab","correlation_id":"019aa000-0000-7abc-8def-0123456789ab","causation_id":"019aa000-0000-7abc-8def-0123456789ab"}'::json,
       3::smallint, clock_timestamp()
from generate_series(1, 2) step;
insert into event_store.commands
select gen_random_uuid(), 'checkout', '', 'order', lpad(to_hex(:order::bigint), 36, '0'), 1, 1, false, null, true,
       clock_timestamp()
from generate_series(1, 2);
commit;
begin;
insert into event_store.events
select nextval('positions'), 'order', lpad(to_hex(:order::bigint), 12, '0') || '-' || lpad(to_hex(:suffix::bigint), 20, '0'),
       4 + step, 'Event', '1.0', json_build_object('text', repeat('x', 230)),
       '{"event_id":"019aa000-0000-7abc-8def-0123456789ab","correlation_id":"019aa000-0000-7abc-8def-0123456789ab","causation_id":"019aa000-0000-7abc-8def-0123456789ab"}'::json,
       3::smallint, clock_timestamp()
from generate_series(1, 2) step;
insert into event_store.commands
select gen_random_uuid(), 'checkout', '', 'order', lpad(to_hex(:order::bigint), 36, '0'), 1, 1, false, null, true,
       clock_timestamp()
from generate_series(1, 2);
insert into order_rows values (:order::bigint, 'step', 6, json_build_object('text', repeat('x', 230)))
on conflict (id) do update set events = excluded.events, body = excluded.body;
commit;
begin;
insert into event_store.events
select nextval('positions'), 'order', lpad(to_hex(:order::bigint), 12, '0') || '-' || lpad(to_hex(:suffix::bigint), 20, '0'),
       6 + step, 'Event', '1.0', json_build_object('text', repeat('x', 230)),
       '{"event_id":"019aa000-0000-7abc-8def-0123456789ab","correlation_id":"019aa000-0000-7abc-8def-0123456789ab","causation_id":"019aa000-0000-7abc-8def-0123456789ab"}'::json,
       3::smallint, clock_timestamp()
from generate_series(1, 2) step;
insert into event_store.commands
select gen_random_uuid(), 'checkout', '', 'order', lpad(to_hex(:order::bigint), 36, '0'), 1, 1, false, null, true,
       clock_timestamp()
from generate_series(1, 2);
commit;
begin;
insert into event_store.events
select nextval('positions'), 'order', lpad(to_hex(:order::bigint), 12, '0') || '-' || lpad(to_hex(:suffix::bigint), 20, '0'),
       8 + step, 'Event', '1.0', json_build_object('text', repeat('x', 230)),
       '{"event_id":"019aa000-0000-7abc-8def-0123456789ab","correlation_id":"019aa000-0000-7abc-8def-0123456789ab","causation_id":"019aa000-0000-7abc-8def-0123456789ab"}'::json,
       3::smallint, clock_timestamp()
from generate_series(1, 2) step;
insert into event_store.commands
select gen_random_uuid(), 'checkout', '', 'order', lpad(to_hex(:order::bigint), 36, '0'), 1, 1, false, null, true,
       clock_timestamp()
from generate_series(1, 2);
insert into order_rows values (:order::bigint, 'step', 10, json_build_object('text', repeat('x', 230)))
on conflict (id) do update set events = excluded.events, body = excluded.body;
commit;
begin;
insert into event_store.events
select nextval('positions'), 'order', lpad(to_hex(:order::bigint), 12, '0') || '-' || lpad(to_hex(:suffix::bigint), 20, '0'),
       10 + step, 'Event', '1.0', json_build_object('text', repeat('x', 230)),
       '{"event_id":"019aa000-0000-7abc-8def-0123456789ab","correlation_id":"019aa000-0000-7abc-8def-0123456789ab","causation_id":"019aa000-0000-7abc-8def-0123456789ab"}'::json,
       3::smallint, clock_timestamp()
from generate_series(1, 2) step;
insert into event_store.commands
select gen_random_uuid(), 'checkout', '', 'order', lpad(to_hex(:order::bigint), 36, '0'), 1, 1, false, null, true,
       clock_timestamp()
from generate_series(1, 2);
commit;
begin;
insert into event_store.events
select nextval('positions'), 'order', lpad(to_hex(:order::bigint), 12, '0') || '-' || lpad(to_hex(:suffix::bigint), 20, '0'),
       12 + step, 'Event', '1.0', json_build_object('text', repeat('x', 230)),
       '{"event_id":"019aa000-0000-7abc-8def-0123456789ab","correlation_id":"019aa000-0000-7abc-8def-0123456789ab","causation_id":"019aa000-0000-7abc-8def-0123456789ab"}'::json,
       3::smallint, clock_timestamp()
from generate_series(1, 2) step;
insert into event_store.commands
select gen_random_uuid(), 'checkout', '', 'order', lpad(to_hex(:order::bigint), 36, '0'), 1, 1, false, null, true,
       clock_timestamp()
from generate_series(1, 2);
insert into order_rows values (:order::bigint, 'step', 14, json_build_object('text', repeat('x', 230)))
on conflict (id) do update set events = excluded.events, body = excluded.body;
commit;
begin;
insert into event_store.events
select nextval('positions'), 'order', lpad(to_hex(:order::bigint), 12, '0') || '-' || lpad(to_hex(:suffix::bigint), 20, '0'),
       14 + step, 'Event', '1.0', json_build_object('text', repeat('x', 230)),
       '{"event_id":"019aa000-0000-7abc-8def-0123456789ab","correlation_id":"019aa000-0000-7abc-8def-0123456789ab","causation_id":"019aa000-0000-7abc-8def-0123456789ab"}'::json,
       3::smallint, clock_timestamp()
from generate_series(1, 2) step;
insert into event_store.commands
select gen_random_uuid(), 'checkout', '', 'order', lpad(to_hex(:order::bigint), 36, '0'), 1, 1, false, null, true,
       clock_timestamp()
from generate_series(1, 1);
commit;
begin;
insert into event_store.events
select nextval('positions'), 'order', lpad(to_hex(:order::bigint), 12, '0') || '-' || lpad(to_hex(:suffix::bigint), 20, '0'),
       16 + step, 'Event', '1.0', json_build_object('text', repeat('x', 230)),
       '{"event_id":"019aa000-0000-7abc-8def-0123456789ab","correlation_id":"019aa000-0000-7abc-8def-0123456789ab","causation_id":"019aa000-0000-7abc-8def-0123456789ab"}'::json,
       3::smallint, clock_timestamp()
from generate_series(1, 2) step;
insert into event_store.commands
select gen_random_uuid(), 'checkout', '', 'order', lpad(to_hex(:order::bigint), 36, '0'), 1, 1, false, null, true,
       clock_timestamp()
from generate_series(1, 1);
insert into order_rows values (:order::bigint, 'step', 18, json_build_object('text', repeat('x', 230)))
on conflict (id) do update set events = excluded.events, body = excluded.body;
commit;
begin;
insert into event_store.events
select nextval('positions'), 'order', lpad(to_hex(:order::bigint), 12, '0') || '-' || lpad(to_hex(:suffix::bigint), 20, '0'),
       18 + step, 'Event', '1.0', json_build_object('text', repeat('x', 230)),
       '{"event_id":"019aa000-0000-7abc-8def-0123456789ab","correlation_id":"019aa000-0000-7abc-8def-0123456789ab","causation_id":"019aa000-0000-7abc-8def-0123456789ab"}'::json,
       3::smallint, clock_timestamp()
from generate_series(1, 2) step;
insert into event_store.commands
select gen_random_uuid(), 'checkout', '', 'order', lpad(to_hex(:order::bigint), 36, '0'), 1, 1, false, null, true,
       clock_timestamp()
from generate_series(1, 1);
commit;
