alter table event_store.leases drop column guard;
