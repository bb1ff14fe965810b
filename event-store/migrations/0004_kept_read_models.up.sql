-- What was rebuilt up to a point in the past is kept until it is dropped; as long as it counted as being built,
-- the next rebuild took it for what an interrupted one had left.
alter table event_store.read_models drop constraint read_models_status_check;
alter table event_store.read_models
    add constraint read_models_status_check check (status in ('building', 'live', 'retired', 'kept'));
