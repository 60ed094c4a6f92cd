//! The console's answers as they are, without a browser.

use serde_json::json;
use url::form_urlencoded;

use crate::support::store::{Answer, Caller, Folder, Store, client_id, confidential, public};

/// Paths of pages, each with what is at the most general place below it.
const PAGES: [&str; 11] = [
    "/console/",
    "/console/settings",
    "/console/settings/registration?enable=true",
    "/console/settings/mode?mode=permissive",
    "/console/applications",
    "/console/apis",
    "/console/connections",
    "/console/access-control",
    "/console/access-control/new",
    "/console/access-control/try",
    "/console/logs",
];

fn encoded(fields: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

fn post(caller: &Caller, path: &str, headers: &[(&str, &str)], fields: &[(&str, &str)]) -> Answer {
    let headers: Vec<_> =
        headers.iter().copied().chain([("content-type", "application/x-www-form-urlencoded")]).collect();
    caller.call("POST", path, &headers, Some(&encoded(fields)))
}

/// Signs in with a token, and gives the cookie.
fn sign_in(store: &Store, token: &str) -> String {
    let answer = post(&store.anyone(), "/console/sign-in", &[], &[("token", token)]);
    assert_eq!((answer.status, answer.header("location")), (303, "/console/"), "{}", answer.text);
    answer.header("set-cookie").split(';').next().unwrap().to_owned()
}

fn token(folder: &Folder, tenant: &str) -> String {
    folder.succeed(&["token", "--tenant", tenant]).trim().to_owned()
}

fn get(store: &Store, cookie: &str, path: &str) -> Answer {
    store.anyone().call("GET", path, &[("cookie", cookie)], None)
}

/// What the forms of a page send back.
fn csrf(page: &Answer) -> &str {
    let (_, rest) = page.text.split_once("name=\"csrf\" value=\"").unwrap();
    rest.split('"').next().unwrap()
}

#[test]
fn every_page_asks_for_a_session_and_is_protected() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let cookie = sign_in(&store, &token(&folder, "default"));
    for path in PAGES {
        let answer = store.anyone().get(path);
        assert_eq!((answer.status, answer.header("location")), (303, "/console/sign-in"), "{path}");
        let shown = get(&store, &cookie, path);
        assert_eq!(shown.status, 200, "{path}: {}", shown.text);
        for answer in [answer, shown] {
            let policy = answer.header("content-security-policy");
            for part in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "form-action 'self'"] {
                assert!(policy.contains(part), "{path}: {policy}");
            }
            assert!(!policy.contains("unsafe"), "{policy}");
            assert_eq!(answer.header("cache-control"), "no-store", "{path}");
            assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        }
    }
    assert_eq!(get(&store, &cookie, "/console").header("location"), "/console/");
    assert_eq!(get(&store, &cookie, "/console/nothing/here").status, 404);
}

#[test]
fn a_session_is_a_token_of_its_tenant_and_ends_with_it() {
    let folder = Folder::with_default_tenant();
    folder.create_enabled_tenant("other", json!({}));
    let store = folder.serve();
    assert_eq!(store.edge().put_client("default", &client_id(1), &public()).status, 201);
    let path = format!("/console/applications/{}", client_id(1));
    assert_eq!(get(&store, &sign_in(&store, &token(&folder, "default")), &path).status, 200);
    assert_eq!(get(&store, &sign_in(&store, &token(&folder, "other")), &path).status, 404, "another tenant's");
    for none in ["dcr_console=", "dcr_console=x", "dcr_console=a.b.c", "other=1"] {
        assert_eq!(get(&store, none, &path).status, 303, "{none}");
    }
    let edge = folder.succeed(&["token", "--kind", "edge"]);
    assert_eq!(post(&store.anyone(), "/console/sign-in", &[], &[("token", edge.trim())]).status, 401);
    let cookie = sign_in(&store, &token(&folder, "other"));
    folder.succeed(&["tenant", "delete", "other"]);
    assert_eq!(get(&store, &cookie, "/console/").status, 303);
}

#[test]
fn nothing_is_done_that_a_page_of_the_session_did_not_send() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let (one, other) = (token(&folder, "default"), folder.succeed(&["token", "--tenant", "default", "--ttl", "1h"]));
    let (cookie, of_other) = (sign_in(&store, &one), sign_in(&store, other.trim()));
    let page = get(&store, &cookie, "/console/settings");
    let (ours, theirs) = (csrf(&page).to_owned(), csrf(&get(&store, &of_other, "/console/settings")).to_owned());
    assert_ne!(ours, theirs);
    let address = store.address().to_string();
    let origin = format!("http://{address}");
    let disable = |headers: &[(&str, &str)], csrf: &str| {
        let headers: Vec<_> = headers.iter().copied().chain([("cookie", cookie.as_str())]).collect();
        let fields = [("enable", "false"), ("csrf", csrf)];
        post(&store.anyone(), "/console/settings/registration", &headers, &fields).status
    };
    let same = ("origin", origin.as_str());
    assert_eq!(disable(&[same], ""), 403);
    assert_eq!(disable(&[same], &theirs), 403);
    assert_eq!(disable(&[("origin", "https://evil.example")], &ours), 403);
    assert_eq!(disable(&[("origin", "null")], &ours), 403);
    assert_eq!(disable(&[("sec-fetch-site", "same-site"), same], &ours), 403);
    let settings = || store.owner("default").get("/api/v2/tenants/settings").json();
    assert_eq!(settings()["flags"]["enable_dynamic_client_registration"], true);
    assert_eq!(disable(&[("sec-fetch-site", "same-origin"), same], &ours), 303);
    assert_eq!(settings()["flags"]["enable_dynamic_client_registration"], false);
    // Nobody is signed in by a page of others either.
    let forced = post(&store.anyone(), "/console/sign-in", &[("origin", "https://evil.example")], &[("token", &one)]);
    assert_eq!((forced.status, forced.header("set-cookie")), (403, ""));
}

#[test]
fn no_secret_is_made_anew_for_whoever_would_not_see_it() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let id = client_id(7);
    assert_eq!(store.edge().put_client("default", &id, &confidential()).status, 201);
    let before = store.owner("default").get(&format!("/api/v2/clients/{id}")).json()["updated_at"].clone();
    let only = folder.succeed(&["token", "--tenant", "default", "--scope", "update:client_keys read:logs"]);
    let cookie = sign_in(&store, only.trim());
    let csrf = csrf(&get(&store, &cookie, "/console/")).to_owned();
    let path = format!("/console/applications/{id}/rotate-secret");
    assert_eq!(post(&store.anyone(), &path, &[("cookie", &cookie)], &[("csrf", &csrf)]).status, 403);
    assert_eq!(store.owner("default").get(&format!("/api/v2/clients/{id}")).json()["updated_at"], before);
    // An id with what has another meaning in a path is nobody's, and no other path is asked for it.
    let all = sign_in(&store, &token(&folder, "default"));
    for id in ["..%2Fconnections", "a%3Fb", "a%23b", "%2e%2e"] {
        assert_eq!(get(&store, &all, &format!("/console/applications/{id}")).status, 404, "{id}");
    }
}

#[test]
fn registration_is_not_switched_on_without_the_answer_to_the_question() {
    let folder = Folder::empty();
    folder.succeed(&["tenant", "create", "default", "--domain", "default.example"]);
    let store = folder.serve();
    let cookie = sign_in(&store, &token(&folder, "default"));
    let csrf = csrf(&get(&store, &cookie, "/console/settings")).to_owned();
    let enable = |more: &[(&str, &str)]| {
        let fields: Vec<_> = [("enable", "true"), ("csrf", &csrf)].into_iter().chain(more.iter().copied()).collect();
        post(&store.anyone(), "/console/settings/registration", &[("cookie", &cookie)], &fields).status
    };
    assert_eq!(enable(&[]), 400);
    let is_on = || {
        let settings = store.owner("default").get("/api/v2/tenants/settings").json();
        settings["flags"]["enable_dynamic_client_registration"] == true
    };
    assert!(!is_on());
    assert_eq!(enable(&[("understood", "yes")]), 303);
    assert!(is_on());
    let page = get(&store, &cookie, "/console/settings");
    assert!(page.text.contains("No API has default permissions") && page.text.contains("No connection is promoted"));
}

#[test]
fn a_rule_of_as_many_ranges_as_a_tenant_may_have_is_written_and_edited_in_the_form() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let cookie = sign_in(&store, &token(&folder, "default"));
    let csrf = csrf(&get(&store, &cookie, "/console/settings")).to_owned();
    let ranges: String =
        (0..100_000_u32).map(|number| format!("2001:db8:{:x}:{:x}::/64\r\n", number >> 16, number & 0xffff)).collect();
    let fields = [
        ("csrf", csrf.as_str()),
        ("description", "many"),
        ("active", "yes"),
        ("scope", "tenant"),
        ("action", "block"),
        ("whom", "some"),
        ("match.ipv6_cidrs", &ranges),
    ];
    let written = post(&store.anyone(), "/console/access-control/new", &[("cookie", &cookie)], &fields);
    assert_eq!(written.status, 303, "{:.2000}", written.text);
    let rules = store.owner("default").get("/api/v2/network-acls").json();
    assert_eq!(rules[0]["rule"]["match"]["ipv6_cidrs"].as_array().unwrap().len(), 100_000);
    let path = format!("/console/access-control/{}", rules[0]["id"].as_str().unwrap());
    assert!(get(&store, &cookie, &path).text.contains("2001:db8:1:1234::/64"));
    assert_eq!(post(&store.anyone(), &path, &[("cookie", &cookie)], &fields).status, 303);
    let tried = get(&store, &cookie, "/console/access-control/try?kind=other&address=2001:db8:1:7::1");
    assert!(tried.text.contains("The request is blocked."), "{:.2000}", tried.text);
}

#[test]
fn a_cookie_is_only_for_encrypted_connections_where_there_is_one() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let token = token(&folder, "default");
    for (headers, is_secure) in [(&[][..], false), (&[("x-forwarded-proto", "https")], true)] {
        let answer = post(&store.anyone(), "/console/sign-in", headers, &[("token", &token)]);
        let cookie = answer.header("set-cookie").to_owned();
        assert!(cookie.contains("; HttpOnly; SameSite=Strict") && cookie.contains("Path=/console/"), "{cookie}");
        assert_eq!(cookie.contains("; Secure"), is_secure, "{cookie}");
    }
    let page = |host| store.anyone().call("GET", "/console/sign-in", &[("host", host)], None).text;
    assert!(page("store.example:8081").contains("not encrypted"));
    for local in ["localhost:8081", "127.0.0.1", "[::1]:8081"] {
        assert!(!page(local).contains("not encrypted"), "{local}");
    }
}

#[test]
fn a_link_opens_the_console_of_its_tenant_with_its_scopes_and_no_longer_than_it_says() {
    let folder = Folder::with_default_tenant();
    let store = folder.serve();
    let link = |more: &[&str]| {
        let arguments: Vec<&str> = ["console-link", "--tenant", "default"].iter().chain(more).copied().collect();
        let link = folder.succeed(&arguments);
        let (address, code) = link.trim().split_once("/console/sign-in?code=").unwrap();
        assert_eq!(address, "http://127.0.0.1:8081");
        code.to_owned()
    };
    let sign_in = |code: &str| post(&store.anyone(), "/console/sign-in", &[], &[("code", code)]);
    let answer = sign_in(&link(&["--scope", "read:logs", "--session-ttl", "1s"]));
    let cookie = answer.header("set-cookie").split(';').next().unwrap().to_owned();
    assert_eq!(get(&store, &cookie, "/console/logs").status, 200);
    assert_eq!(get(&store, &cookie, "/console/settings").status, 403);
    // What other scopes are for is not on the first page either.
    let first = get(&store, &cookie, "/console/").text;
    assert!(first.contains("Latest events") && first.contains("is shown to tokens with the scopes"), "{first}");
    assert!(!first.contains("requests at once") && !first.contains("promoted"), "{first}");
    let code = link(&[]);
    assert_eq!((sign_in(&code).status, sign_in(&code).status), (303, 401));
    assert_eq!(sign_in("").status, 401);
    assert!(folder.fail(&["console-link", "--tenant", "nobody"]).contains("there is no tenant nobody"));
    let wrong = folder.fail(&["console-link", "--tenant", "default", "--url", "127.0.0.1:8081"]);
    assert!(wrong.contains("--url is where a browser finds the store"), "{wrong}");
    assert!(folder.fail(&["console-link", "--tenant", "default", "--ttl", "0s"]).contains("last a second or more"));
}
