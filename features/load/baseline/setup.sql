-- What order.sql needs beside the tables of event-store/migrations/0001_event_store.up.sql, in a database of its own.
create sequence positions;
create table order_rows (id bigint primary key, status text not null, events integer not null, body json not null);
