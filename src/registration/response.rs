//! The body of the 201 answer (RFC 7591 §3.2.1).

use serde::Serialize;

use super::{ClientMetadata, ClientSecret};
use crate::edge_api::RegisteredClient;

#[derive(Serialize)]
struct Response<'a> {
    client_id: &'a str,
    client_id_issued_at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_secret: Option<&'a str>,
    /// In UNIX seconds; 0: never. Sent without a secret too, since clients look for it.
    client_secret_expires_at: u64,
    #[serde(flatten)]
    metadata: &'a ClientMetadata,
}

/// The body of the 201 answer: the credentials, then every member as registered. `secret`, with the UNIX second at which it
/// ends or 0 for never, is absent for a public client. The body contains it, so it must not be logged or cached.
///
/// # Errors
/// Serialisation of these types does not fail; the error is `serde_json`'s, passed on so that nothing can panic.
pub fn response(
    client: &RegisteredClient,
    secret: Option<(&ClientSecret, u64)>,
    metadata: &ClientMetadata,
) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&Response {
        client_id: &client.client_id,
        client_id_issued_at: client.client_id_issued_at,
        client_secret: secret.map(|(secret, _)| secret.expose()),
        client_secret_expires_at: secret.map_or(0, |(_, expires_at)| expires_at),
        metadata,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registration::{check, client_secret};
    use crate::tenant::{DcrEdge, SecurityMode};

    fn client() -> RegisteredClient {
        RegisteredClient { client_id: "tpc_x".to_owned(), client_id_issued_at: 1_700_000_000 }
    }

    fn text(secret: Option<&ClientSecret>, body: &str) -> String {
        let metadata = check(body.as_bytes(), SecurityMode::Strict, &DcrEdge::default()).unwrap();
        String::from_utf8(response(&client(), secret.map(|secret| (secret, 0)), &metadata).unwrap()).unwrap()
    }

    #[test]
    fn a_public_client_gets_no_secret_and_all_members_in_a_fixed_order() {
        let body = r#"{"client_name":"A","token_endpoint_auth_method":"none","redirect_uris":["http://localhost/cb"]}"#;
        assert_eq!(
            text(None, body),
            concat!(
                r#"{"client_id":"tpc_x","client_id_issued_at":1700000000,"client_secret_expires_at":0,"#,
                r#""redirect_uris":["http://localhost/cb"],"token_endpoint_auth_method":"none","#,
                r#""grant_types":["authorization_code"],"response_types":["code"],"application_type":"native","#,
                r#""client_name":"A"}"#
            )
        );
    }

    #[test]
    fn a_confidential_client_gets_its_secret() {
        let secret = client_secret(&mut |buffer: &mut [u8]| {
            buffer.fill(10);
            Ok::<(), ()>(())
        })
        .unwrap();
        let text = text(Some(&secret), r#"{"redirect_uris":["https://a.example/"]}"#);
        let expected = format!(r#""client_secret":"{}","client_secret_expires_at":0,"#, "A".repeat(64));
        assert!(text.contains(&expected), "{text}");
    }
}
