//! The users service on a real PostgreSQL: its routes, and what it answers the other services over gRPC.

mod asking_over_grpc;
mod certificates;
mod sessions_and_profiles;
mod shop;
