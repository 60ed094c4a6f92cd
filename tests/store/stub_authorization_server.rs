//! The stand-in for an authorization server.

use serde_json::json;

use crate::support::store::{Caller, Folder};

#[test]
fn the_stand_in_publishes_where_to_register_and_echoes_everything_else() {
    let folder = Folder::empty();
    let mut command = folder.command(&["stub-authorization-server", "--listen", "127.0.0.1:0"]);
    let (_process, address) = folder.start("authorization-server", &mut command);
    let caller = Caller::new(address);
    for path in ["/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"] {
        let headers = [("host", "login.example:8443"), ("x-forwarded-proto", "https")];
        let document = caller.call("GET", path, &headers, None).json();
        assert_eq!(document["issuer"], "https://login.example:8443/");
        assert_eq!(document["registration_endpoint"], "https://login.example:8443/oidc/register");
        assert_eq!(document["code_challenge_methods_supported"], json!(["S256"]));
    }
    let plain = caller.get("/.well-known/openid-configuration").json();
    assert_eq!(plain["token_endpoint"], format!("http://{address}/oauth/token"));

    let answer = caller.call("POST", "/oauth/token?a=b", &[("x-test", "yes")], Some("12345"));
    assert_eq!((answer.status, answer.header("x-stub-authorization-server")), (200, "echo"));
    let seen = answer.json();
    assert_eq!(
        (&seen["method"], &seen["path"], &seen["body_bytes"]),
        (&json!("POST"), &json!("/oauth/token?a=b"), &json!(5))
    );
    assert!(seen["headers"].as_array().unwrap().contains(&json!(["x-test", "yes"])));
}
