//! The read models of the catalog service.

pub mod product_listing;

pub use product_listing::ProductListing;
