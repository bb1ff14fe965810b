drop schema event_store cascade;
