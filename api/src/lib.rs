//! Online Mart.
