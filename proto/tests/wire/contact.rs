//! The gRPC service of the users service: client and server speak to each other, here without a network.

use proto::mart::users::v1::user_auth_client::UserAuthClient;
use proto::mart::users::v1::user_auth_server::{UserAuth, UserAuthServer};
use proto::mart::users::v1::{
    GetContactRequest, GetContactResponse, ValidateTokenRequest, ValidateTokenResponse,
};
use tonic::{Code, Request, Response, Status};

struct OneUser;

#[tonic::async_trait]
impl UserAuth for OneUser {
    async fn validate_token(
        &self,
        request: Request<ValidateTokenRequest>,
    ) -> Result<Response<ValidateTokenResponse>, Status> {
        if request.into_inner().token != "good" {
            return Err(Status::unauthenticated("the token is not valid"));
        }
        Ok(Response::new(ValidateTokenResponse {
            user_id: "019551a0-0000-7000-8000-000000000001".to_owned(),
            email: "ada@example.com".to_owned(),
            role: "customer".to_owned(),
        }))
    }

    async fn get_contact(
        &self,
        request: Request<GetContactRequest>,
    ) -> Result<Response<GetContactResponse>, Status> {
        Ok(Response::new(GetContactResponse {
            email: format!("{}@example.com", request.into_inner().user_id),
            phone: String::new(),
            name: "there".to_owned(),
        }))
    }
}

#[tokio::test]
async fn a_client_asks_and_the_server_answers() {
    let mut client = UserAuthClient::new(UserAuthServer::new(OneUser));
    let request = ValidateTokenRequest { token: "good".to_owned() };
    let holder = client.validate_token(request).await.expect("the token is good").into_inner();
    assert_eq!(holder.email, "ada@example.com");

    let request = GetContactRequest { user_id: "ada".to_owned() };
    let contact = client.get_contact(request).await.expect("there is such a user").into_inner();
    let expected = GetContactResponse {
        email: "ada@example.com".to_owned(),
        phone: String::new(),
        name: "there".to_owned(),
    };
    assert_eq!(contact, expected);
}

#[tokio::test]
async fn a_bad_token_is_unauthenticated() {
    let mut client = UserAuthClient::new(UserAuthServer::new(OneUser));
    let request = ValidateTokenRequest { token: "bad".to_owned() };
    let refusal = client.validate_token(request).await.expect_err("the token is bad");
    assert_eq!(refusal.code(), Code::Unauthenticated);
}
