//! Products: everybody finds them, staff keeps them.

mod drafts;

use axum::extract::{RawQuery, State};
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use event_store::Target;
use projections::catalog::product_listing::{self, ProductCursor, ProductQuery, ProductRow, ProductSort};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use aggregates::catalog::{Details, Product, ProductCommand, ProductError};

use crate::extract::{Json, Page, Path, Query};
use crate::listing::Listed;
use crate::problem::{Problem, ProblemBody};
use crate::routes::amounts::money;
use crate::routes::executed::{Done, carry_out_claiming};
use crate::routes::staff::Staff;
use crate::service::{self, Answer, Write, created, engine, no_content, ok};
use crate::services::CatalogService;
use crate::text;

use drafts::{ProductDraft, ProductPatch};

/// The name of the service in positions.
const CATALOG: &str = "catalog";
/// The longest search and the longest category, in characters.
const SEARCH_MAX_CHARS: usize = 200;
/// The longest question and the longest answer that are remembered, in bytes.
const REMEMBERED_QUESTION_MAX_BYTES: usize = 512;
const REMEMBERED_PAGE_MAX_BYTES: usize = 64 * 1024;

/// The routes of the catalogue, without what surrounds them.
pub fn paths() -> OpenApiRouter<CatalogService> {
    OpenApiRouter::new().routes(routes!(list_products, post_product)).routes(routes!(
        get_product,
        put_product,
        patch_product,
        delete_product
    ))
}

/// The routes of the catalogue.
pub fn routes(service: CatalogService) -> OpenApiRouter {
    let surroundings = service.surroundings.clone();
    service::surround(paths().with_state(service), surroundings)
}

/// A product.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
struct ProductView {
    id: Uuid,
    /// The stock-keeping unit.
    sku: Option<String>,
    name: String,
    description: String,
    country_of_origin: String,
    /// A decimal number.
    #[schema(example = "999.99")]
    price: String,
    /// By ISO 4217.
    #[schema(example = "USD")]
    currency: String,
    /// Whether it is offered and there is some.
    is_available: bool,
    categories: Vec<String>,
    /// Addresses of pictures.
    images: Vec<String>,
}

impl ProductView {
    fn of(id: Uuid, details: &Details, is_available: bool) -> Self {
        Self {
            id,
            sku: details.sku.clone(),
            name: details.name.clone(),
            description: details.description.clone(),
            country_of_origin: details.country_of_origin.clone(),
            price: details.price.to_string(),
            currency: details.price.currency.code().to_owned(),
            is_available,
            categories: details.categories.clone(),
            images: details.images.clone(),
        }
    }

    fn of_row(row: ProductRow) -> Result<Self, Problem> {
        let price = money(row.price_minor, &row.currency)?;
        Ok(Self {
            id: row.id,
            sku: row.sku,
            name: row.name,
            description: row.description,
            country_of_origin: row.country_of_origin,
            price: price.to_string(),
            currency: row.currency,
            is_available: row.is_available,
            categories: row.categories,
            images: row.images,
        })
    }
}

/// Which products are wanted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ProductParameters {
    /// Those whose name or description contains this.
    search: Option<String>,
    /// Those of this category.
    category: Option<String>,
    /// Those that can be ordered, or those that cannot.
    available: Option<bool>,
    /// The order: `name`, `price` or `created_at`, with `-` before it the other way round [default: -created_at].
    sort: Option<String>,
    /// The most rows to answer.
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<String>,
    /// Where to go on: `next_cursor` of the page before.
    cursor: Option<String>,
}

impl ProductParameters {
    fn check(self) -> Result<(ProductQuery, Page), Problem> {
        let wanted = |name: &str, value: Option<String>| {
            let value = value.map(|value| text::line(&value, 0..=SEARCH_MAX_CHARS)).transpose();
            let value = value.map_err(|message| Problem::invalid_field(name, message))?;
            Ok::<_, Problem>(value.filter(|value| !value.is_empty()))
        };
        let sort = match self.sort.as_deref() {
            None => ProductSort::default(),
            Some(name) => sort_named(name).ok_or_else(|| {
                Problem::invalid_field("sort", "must be name, price or created_at, or one of these after a -")
            })?,
        };
        let query = ProductQuery {
            search: wanted("search", self.search)?,
            category: wanted("category", self.category)?,
            available: self.available,
            sort,
        };
        Ok((query, Page::new(self.limit.as_deref(), self.cursor.as_deref())?))
    }
}

fn sort_named(name: &str) -> Option<ProductSort> {
    match name {
        "name" => Some(ProductSort::Name),
        "-name" => Some(ProductSort::NameDescending),
        "price" => Some(ProductSort::Price),
        "-price" => Some(ProductSort::PriceDescending),
        "created_at" => Some(ProductSort::CreatedAt),
        "-created_at" => Some(ProductSort::CreatedAtDescending),
        _ => None,
    }
}

/// The place a list goes on from; a place in a list of another order is none.
fn place(page: &Page, sort: ProductSort) -> Result<Option<ProductCursor>, Problem> {
    let place = page.cursor.as_ref().map(|cursor| cursor.key::<ProductCursor>()).transpose()?;
    match place {
        Some(place) if !place.fits(sort) => {
            Err(Problem::invalid_field("cursor", "must be the next_cursor of a page of this list"))
        }
        place => Ok(place),
    }
}

/// Lists the products on offer, the newest first unless sorted otherwise.
#[utoipa::path(get, path = "/v1/products", tag = "catalog", params(ProductParameters),
    responses(
        (status = OK, body = Listed<ProductView>),
        (status = UNPROCESSABLE_ENTITY, body = ProblemBody, description = "a parameter is not right"),
    ))]
async fn list_products(
    State(service): State<CatalogService>,
    RawQuery(asked): RawQuery,
    Query(parameters): Query<ProductParameters>,
) -> Result<Response, Problem> {
    let (query, page) = parameters.check()?;
    let after = place(&page, query.sort)?;
    let asked = asked.unwrap_or_default();
    let seen = service.listing.seen().await.map_err(engine)?;
    let remembered = seen.as_ref().and_then(|seen| service.pages.find(seen, asked.as_str()));
    if let Some(body) = remembered {
        return Ok(json(body));
    }
    let products = product_listing::list_products(&service.listing, &query, after.as_ref(), page.limit);
    let listed = Listed::try_of(products.await.map_err(engine)?, ProductView::of_row)?;
    let body = serde_json::to_vec(&listed).map_err(|error| Problem::internal(error.to_string()))?;
    let body = Bytes::from(body);
    if let Some(seen) = seen
        && asked.len() <= REMEMBERED_QUESTION_MAX_BYTES
        && body.len() <= REMEMBERED_PAGE_MAX_BYTES
    {
        service.pages.keep(&seen, asked, body.clone());
    }
    Ok(json(body))
}

/// 200 with a body that is JSON already.
fn json(body: Bytes) -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}

/// Shows a product.
#[utoipa::path(get, path = "/v1/products/{id}", tag = "catalog", params(("id" = Uuid, Path)),
    responses(
        (status = OK, body = ProductView, headers(("ETag" = String, description = "its version"))),
        (status = NOT_FOUND, body = ProblemBody),
    ))]
async fn get_product(
    State(service): State<CatalogService>,
    Path(id): Path<Uuid>,
) -> Result<Answer<ProductView>, Problem> {
    let row = product_listing::find_product(&service.listing, id).await.map_err(engine)?;
    let row = row.ok_or_else(Problem::not_found)?;
    let version = row.version;
    Ok(ok(ProductView::of_row(row)?).with_version(version))
}

/// Lists a product. It has no stock until the inventory says so.
#[utoipa::path(post, path = "/v1/products", tag = "catalog", request_body = ProductDraft,
    security(("bearer" = [])),
    responses(
        (status = CREATED, body = ProductView, headers(("Location" = String), ("ETag" = String))),
        (status = UNAUTHORIZED, body = ProblemBody),
        (status = FORBIDDEN, body = ProblemBody),
        (status = CONFLICT, body = ProblemBody, description = "the name with its origin, or the SKU, is taken"),
        (status = UNPROCESSABLE_ENTITY, body = ProblemBody),
    ))]
async fn post_product(
    State(service): State<CatalogService>,
    _staff: Staff,
    write: Write,
    body: Result<Json<ProductDraft>, Problem>,
) -> Result<Answer<ProductView>, Problem> {
    let Json(draft) = body?;
    let target = Target::New(Uuid::now_v7().to_string());
    let done = give(&service, &write, target, draft.list()?).await?;
    let view = view_after(&service, &done).await?;
    let location = format!("/v1/products/{}", view.id);
    Ok(created(&location, view).with_version(done.version).with_position(CATALOG, &done.id, done.position))
}

/// Replaces a product: what is not sent gets its default.
#[utoipa::path(put, path = "/v1/products/{id}", tag = "catalog", params(("id" = Uuid, Path)),
    request_body = ProductDraft, security(("bearer" = [])),
    responses(
        (status = OK, body = ProductView, headers(("ETag" = String))),
        (status = UNAUTHORIZED, body = ProblemBody),
        (status = FORBIDDEN, body = ProblemBody),
        (status = NOT_FOUND, body = ProblemBody),
        (status = CONFLICT, body = ProblemBody, description = "the name with its origin, or the SKU, is taken"),
        (status = PRECONDITION_FAILED, body = ProblemBody, description = "If-Match names another version"),
        (status = UNPROCESSABLE_ENTITY, body = ProblemBody),
    ))]
async fn put_product(
    State(service): State<CatalogService>,
    _staff: Staff,
    Path(id): Path<Uuid>,
    write: Write,
    body: Result<Json<ProductDraft>, Problem>,
) -> Result<Answer<ProductView>, Problem> {
    present(&service, id).await?;
    let Json(draft) = body?;
    change(&service, id, &write, draft.replace()?).await
}

/// Changes a product: what is not sent stays.
#[utoipa::path(patch, path = "/v1/products/{id}", tag = "catalog", params(("id" = Uuid, Path)),
    request_body = ProductPatch, security(("bearer" = [])),
    responses(
        (status = OK, body = ProductView, headers(("ETag" = String))),
        (status = UNAUTHORIZED, body = ProblemBody),
        (status = FORBIDDEN, body = ProblemBody),
        (status = NOT_FOUND, body = ProblemBody),
        (status = CONFLICT, body = ProblemBody, description = "the name with its origin, or the SKU, is taken"),
        (status = PRECONDITION_FAILED, body = ProblemBody, description = "If-Match names another version"),
        (status = UNPROCESSABLE_ENTITY, body = ProblemBody),
    ))]
async fn patch_product(
    State(service): State<CatalogService>,
    _staff: Staff,
    Path(id): Path<Uuid>,
    write: Write,
    body: Result<Json<ProductPatch>, Problem>,
) -> Result<Answer<ProductView>, Problem> {
    let details = present(&service, id).await?;
    let Json(patch) = body?;
    change(&service, id, &write, patch.revise(details.price.currency)?).await
}

/// Discontinues a product. Its history stays.
#[utoipa::path(delete, path = "/v1/products/{id}", tag = "catalog", params(("id" = Uuid, Path)),
    security(("bearer" = [])),
    responses(
        (status = NO_CONTENT),
        (status = UNAUTHORIZED, body = ProblemBody),
        (status = FORBIDDEN, body = ProblemBody),
        (status = NOT_FOUND, body = ProblemBody),
        (status = PRECONDITION_FAILED, body = ProblemBody, description = "If-Match names another version"),
    ))]
async fn delete_product(
    State(service): State<CatalogService>,
    _staff: Staff,
    Path(id): Path<Uuid>,
    write: Write,
) -> Result<Answer<()>, Problem> {
    let target = Target::Existing(id.to_string());
    let done = give(&service, &write, target, ProductCommand::Discontinue).await?;
    // Not looked up before: a repeated request would find its own work done and call it missing.
    if done.position == 0 {
        return Err(Problem::not_found());
    }
    Ok(no_content().with_position(CATALOG, &done.id, done.position))
}

/// The product as it is, unless it was never listed or is discontinued.
async fn present(service: &CatalogService, id: Uuid) -> Result<Details, Problem> {
    let loaded = service.products.load(&id.to_string()).await.map_err(engine)?;
    loaded.aggregate.details().cloned().ok_or_else(Problem::not_found)
}

async fn change(
    service: &CatalogService,
    id: Uuid,
    write: &Write,
    command: ProductCommand,
) -> Result<Answer<ProductView>, Problem> {
    let done = give(service, write, Target::Existing(id.to_string()), command).await?;
    let view = view_after(service, &done).await?;
    Ok(ok(view).with_version(done.version).with_position(CATALOG, &done.id, done.position))
}

async fn give(
    service: &CatalogService,
    write: &Write,
    target: Target,
    command: ProductCommand,
) -> Result<Done<Product>, Problem> {
    carry_out_claiming(&service.products, target, command, write.context(), problem, taken).await
}

/// The product after a write: the aggregate knows what it is, the listing whether there is some.
async fn view_after(service: &CatalogService, done: &Done<Product>) -> Result<ProductView, Problem> {
    let id = done.id.parse().map_err(|error: uuid::Error| Problem::internal(error))?;
    match &done.state {
        Product::Listed(details) => {
            let row = product_listing::find_product(&service.listing, id).await.map_err(engine)?;
            Ok(ProductView::of(id, details, row.is_some_and(|row| row.available > 0)))
        }
        Product::Withdrawn(details) => Ok(ProductView::of(id, details, false)),
        Product::Unlisted | Product::Discontinued => Err(Problem::not_found()),
    }
}

fn taken(scope: &str) -> Problem {
    match scope {
        "sku" => Problem::conflict("sku_taken", "another product has this SKU")
            .with_error("sku", vec!["Product with this SKU already exists."]),
        _ => Problem::conflict("name_taken", "another product has this name and country of origin")
            .with_error("name", vec!["Product with this name and country of origin already exists."]),
    }
}

fn problem(refusal: ProductError) -> Problem {
    match refusal {
        ProductError::Unlisted | ProductError::Discontinued => Problem::not_found(),
        ProductError::AlreadyListed => Problem::conflict("already_listed", "this product is listed already"),
        ProductError::NegativePrice => Problem::invalid_field("price", "must be greater than or equal to 0"),
        ProductError::TooMany { field, max } => {
            Problem::invalid_field(field, format!("must have at most {max} items"))
        }
        ProductError::OpeningStockTooLarge { max } => {
            Problem::invalid_field("opening_stock", format!("must be less than or equal to {max}"))
        }
        ProductError::Invalid { field, reason } => Problem::invalid_field(field, reason.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use aggregates::money::{Currency, Money};
    use serde_json::json;

    use super::*;
    use crate::extract::Cursor;

    fn details() -> Details {
        Details {
            name: "Laptop".to_owned(),
            description: "Thin".to_owned(),
            country_of_origin: "Italy".to_owned(),
            price: Money::new(99_990, Currency::USD),
            sku: None,
            categories: vec!["computers".to_owned()],
            images: Vec::new(),
            attributes: std::collections::BTreeMap::new(),
        }
    }

    #[test]
    fn a_product_is_shown_with_all_decimals_of_its_price() {
        let shown = serde_json::to_value(ProductView::of(Uuid::nil(), &details(), false));
        assert_eq!(
            shown.expect("a view is JSON"),
            json!({
                "id": "00000000-0000-0000-0000-000000000000", "sku": null, "name": "Laptop",
                "description": "Thin", "country_of_origin": "Italy", "price": "999.90", "currency": "USD",
                "is_available": false, "categories": ["computers"], "images": [],
            })
        );
    }

    #[test]
    fn a_list_is_sorted_by_names_that_are_known() {
        let sorted = |sort: &str| {
            let parameters =
                ProductParameters { sort: Some(sort.to_owned()), ..ProductParameters::default() };
            parameters.check().map(|(query, _)| query.sort).map_err(|problem| problem.status().as_u16())
        };
        assert_eq!(sorted("-price"), Ok(ProductSort::PriceDescending));
        assert_eq!(sorted("stock"), Err(422));
    }

    #[test]
    fn an_empty_search_finds_everything() {
        let parameters = ProductParameters { search: Some(String::new()), ..ProductParameters::default() };
        assert_eq!(parameters.check().expect("it is right").0, ProductQuery::default());
    }

    #[test]
    fn a_cursor_of_a_list_of_another_order_is_refused() {
        let cursor = Cursor::after(&ProductCursor::Price(5, Uuid::nil())).to_string();
        let page = Page::new(None, Some(&cursor)).expect("it is a cursor");
        let same = place(&page, ProductSort::PriceDescending).expect("it is of a list by price");
        assert_eq!(same, Some(ProductCursor::Price(5, Uuid::nil())));
        let problem = place(&page, ProductSort::Name).expect_err("it is of another list");
        assert!(problem.errors().contains_key("cursor"));
    }

    #[test]
    fn a_name_taken_and_an_sku_taken_are_told_apart() {
        assert!(taken("sku").errors().contains_key("sku"));
        assert!(taken("name_and_origin").errors().contains_key("name"));
    }
}
