update event_store.read_models set status = 'building' where status = 'kept';
alter table event_store.read_models drop constraint read_models_status_check;
alter table event_store.read_models
    add constraint read_models_status_check check (status in ('building', 'live', 'retired'));
