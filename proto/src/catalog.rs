//! The events of products on the wire.

use aggregates::catalog::ProductEvent;

use crate::mart::catalog::v1;
use crate::published::published;

published! {
    Catalog in "mart.catalog.v1", CatalogEvent with catalog_event::Event:
    Product(ProductEvent, "product") {
        ProductListed {
            name, description, country_of_origin, price, sku, categories, images, attributes,
            opening_stock
        },
        ProductDescribed { name, description, country_of_origin, sku, images, attributes },
        ProductRepriced { price, previous },
        ProductCategorised { categories },
        ProductWithdrawn {},
        ProductRelisted {},
        ProductDiscontinued {},
    }
}
