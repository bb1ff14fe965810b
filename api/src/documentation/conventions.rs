//! What holds for every route, written into the document: headers that may be sent, refusals that may come, and
//! the media type of refusals.

use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, Required, ResponseBuilder};

use crate::problem::MEDIA_TYPE;
use crate::routes::users;

/// The routes of the services; the others, such as `/livez`, have no conventions.
const SERVICES: &str = "/v1/";

/// Completes a document.
pub(super) fn complete(document: &mut OpenApi) {
    let with_tokens = users::token_paths().into_openapi().paths.paths;
    for (path, item) in &mut document.paths.paths {
        let of_service = path.starts_with(SERVICES);
        let PathItem { get, put, post, patch, delete, .. } = item;
        for operation in [&mut *put, post, patch, delete].into_iter().flatten().filter(|_| of_service) {
            if !with_tokens.contains_key(path) {
                accept_header(
                    operation,
                    "Idempotency-Key",
                    "the same request under the same key is done once",
                );
            }
            accept_header(operation, "Prefer", "`respond-async`: answer before the read models show it");
            if operation.responses.responses.contains_key("412") {
                accept_header(operation, "If-Match", "the version that is to be changed, as `ETag` said");
            }
        }
        for operation in get.iter_mut().filter(|_| of_service) {
            accept_header(operation, "Mart-Min-Position", "a `Mart-Position` that the answer must have seen");
        }
        for operation in [get, put, post, patch, delete].into_iter().flatten() {
            if of_service {
                refuse(operation, "400", "a header or the body cannot be read");
                refuse(operation, "500", "the reason is in the logs, under the request id");
                refuse(operation, "503", "something this depends on does not answer: see `Retry-After`");
            }
            if of_service && operation.request_body.is_some() {
                refuse(operation, "413", "the body is larger than 1 MiB");
                refuse(operation, "415", "the body is of another media type");
            }
            name_media_type(operation);
        }
    }
}

fn accept_header(operation: &mut Operation, name: &str, description: &str) {
    let text = ObjectBuilder::new().schema_type(Type::String);
    let header = ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(text));
    operation.parameters.get_or_insert_default().push(RefOr::T(header.build()));
}

/// Adds a refusal, unless the route says itself when it comes.
fn refuse(operation: &mut Operation, status: &str, description: &str) {
    let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("ProblemBody"))).build();
    let refusal = ResponseBuilder::new().description(description).content(MEDIA_TYPE, problem).build();
    operation.responses.responses.entry(status.to_owned()).or_insert(RefOr::T(refusal));
}

/// Refusals are problem documents, which the annotations of the handlers do not repeat each time.
fn name_media_type(operation: &mut Operation) {
    let responses = &mut operation.responses.responses;
    for (_, response) in responses.iter_mut().filter(|(status, _)| status.starts_with(['4', '5'])) {
        let RefOr::T(response) = response else { continue };
        if let Some(problem) = response.content.swap_remove("application/json") {
            response.content.insert(MEDIA_TYPE.to_owned(), problem);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::{documentation, routes};

    fn document() -> Value {
        let document = documentation::document(routes::document()).into_openapi();
        serde_json::to_value(document).expect("a document is JSON")
    }

    #[test]
    fn every_route_tells_what_all_routes_do() {
        let order = &document()["paths"]["/v1/orders"]["post"];
        let names = order["parameters"].as_array().expect("there are some").iter();
        assert_eq!(
            names.map(|parameter| &parameter["name"]).collect::<Vec<_>>(),
            ["Idempotency-Key", "Prefer"]
        );
        for status in ["400", "401", "404", "409", "413", "415", "422", "500", "503"] {
            let content = &order["responses"][status]["content"];
            let schema = json!({"schema": {"$ref": "#/components/schemas/ProblemBody"}});
            assert_eq!(*content, json!({"application/problem+json": schema}), "{status}");
        }
        let list = &document()["paths"]["/v1/products"]["get"];
        assert_eq!(list["parameters"][6]["name"], "Mart-Min-Position");
        assert!(list["responses"].get("413").is_none());
    }

    #[test]
    fn a_route_that_answers_with_tokens_offers_no_key_to_keep_them_under() {
        for path in ["/v1/auth/login", "/v1/auth/refresh"] {
            let parameters = document()["paths"][path]["post"]["parameters"].clone();
            let names: Vec<Value> =
                parameters.as_array().into_iter().flatten().map(|named| named["name"].clone()).collect();
            assert_eq!(names, ["Prefer"], "{path}");
        }
    }

    #[test]
    fn the_routes_that_say_how_the_mart_is_are_told() {
        for path in ["/", "/livez", "/readyz", "/metrics"] {
            assert!(document()["paths"][path]["get"].is_object(), "{path}");
        }
    }
}
