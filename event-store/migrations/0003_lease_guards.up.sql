-- A lease ends with the session of its owner: `guard` names an advisory lock that this session holds. Null, as
-- processes of older versions leave it, means that only its time ends the lease.
alter table event_store.leases add column guard bigint;
