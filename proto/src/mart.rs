//! The generated types, in modules named as their Protobuf packages.

/// What the services share.
pub mod common {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("mart.common.v1");
    }
}

/// The catalog service.
pub mod catalog {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("mart.catalog.v1");
    }
}

/// The inventory service.
pub mod inventory {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("mart.inventory.v1");
    }
}

/// The notifications service.
pub mod notifications {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("mart.notifications.v1");
    }
}

/// The orders service, carts included.
pub mod orders {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("mart.orders.v1");
    }
}

/// The payments service.
pub mod payments {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("mart.payments.v1");
    }
}

/// The users service.
pub mod users {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("mart.users.v1");
    }
}

/// The descriptors of all published files and what they import, comments included: a serialised
/// `google.protobuf.FileDescriptorSet`, for gRPC reflection, documentation and tools that read the topics.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/mart.bin"));
