//! The rules that every database keeps, through the trait that the store uses.

use std::sync::Arc;

use dcr_edge::registration::ErrorCode;
use dcr_edge::store::admission::{NewClient, Refusal};
use dcr_edge::store::db::{Database, Error, IfMissing, Registered, update_tenant};
use dcr_edge::tenant::{Name, Tenant};
use serde_json::{Value, json};

use crate::support::store::{Folder, client_id, confidential, public};

/// When the tests happen, in UNIX seconds.
const NOW: u64 = 1_700_000_000;

/// The rules, once for each kind of database.
macro_rules! rules {
    ($($rule:ident)*) => {
        mod sqlite {
            use super::{Folder, IfMissing};

            $(#[tokio::test]
            async fn $rule() {
                let folder = Folder::empty();
                let database = dcr_edge::store::open(&folder.url(), IfMissing::Create).await.unwrap();
                super::$rule(std::sync::Arc::clone(&database)).await;
                database.close().await;
            })*
        }
    };
}

rules! {
    a_name_and_a_host_belong_to_one_tenant_only
    a_deleted_tenant_frees_its_name_and_hosts_but_never_its_slot
    two_changes_to_one_tenant_at_the_same_time_both_count
    the_first_signing_key_stays
    a_registration_that_is_repeated_changes_nothing
    an_id_belongs_to_one_client_only
    each_registration_of_a_batch_fails_by_itself
    what_an_edge_accepted_is_checked_under_the_settings_of_this_moment
    a_secret_is_there_exactly_if_the_client_is_confidential
    equal_public_clients_are_folded_only_if_the_tenant_says_so
    confidential_clients_are_never_folded
    a_quota_refuses_what_is_too_much
    a_full_quota_lets_a_repeated_registration_pass
    a_reader_without_a_memory_is_told_everything
    a_reader_is_told_what_changed_and_nothing_else
    a_reader_of_another_database_or_of_the_future_is_told_everything
    a_long_telling_comes_in_pages_and_misses_no_change_between_them
    deleting_a_tenant_deletes_its_clients
}

fn tenant(name: &str, dcr_edge: Value) -> Tenant {
    serde_json::from_value(json!({
        "name": name,
        "domains": [format!("{name}.example"), format!("www.{name}.example")],
        "settings": {"flags": {"enable_dynamic_client_registration": true}, "dcr_edge": dcr_edge}
    }))
    .unwrap()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn new_client(tenant: &str, number: usize, registration: &Value) -> NewClient {
    NewClient {
        tenant: name(tenant),
        client_id: client_id(number),
        client_secret_sha256: registration.get("client_secret_sha256").map(|_| [0xab; 32]),
        metadata: serde_json::value::to_raw_value(&registration["metadata"]).unwrap(),
    }
}

fn registered(number: usize, issued_at: u64, created: bool) -> Result<Registered, Refusal> {
    Ok(Registered { client_id: client_id(number), issued_at, created })
}

async fn register(database: &dyn Database, batch: &[NewClient], now: u64) -> Vec<Result<Registered, Refusal>> {
    database.register(batch, now).await.unwrap()
}

async fn register_one(database: &dyn Database, client: NewClient, now: u64) -> Result<Registered, Refusal> {
    register(database, &[client], now).await.remove(0)
}

async fn set(database: &dyn Database, tenant: &str, dcr_edge: Value) {
    let change = |tenant: Tenant| {
        let mut settings = tenant.settings.clone();
        settings.dcr_edge = serde_json::from_value(dcr_edge.clone()).unwrap();
        Ok::<_, Error>(Tenant { settings, ..tenant })
    };
    update_tenant(database, &name(tenant), change).await.unwrap().unwrap();
}

async fn a_name_and_a_host_belong_to_one_tenant_only(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({}))).await.unwrap();
    let again = database.create_tenant(&tenant("a", json!({}))).await;
    assert!(matches!(again, Err(Error::TenantExists(taken)) if taken == name("a")));
    let mut b = tenant("b", json!({}));
    b.domains.push("www.a.example".parse().unwrap());
    let error = database.create_tenant(&b).await.unwrap_err();
    assert_eq!(error.to_string(), "the host www.a.example belongs to the tenant a; a host can have one tenant only");
    assert_eq!(database.tenant(&name("b")).await.unwrap(), None);
    assert_eq!(database.tenants().await.unwrap().len(), 1);
    let found = database.tenant_of_host(&"www.a.example".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(found.tenant, tenant("a", json!({})));
}

async fn a_deleted_tenant_frees_its_name_and_hosts_but_never_its_slot(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({}))).await.unwrap();
    let before = database.tenant(&name("a")).await.unwrap().unwrap();
    assert_eq!(database.delete_tenant(&name("a")).await.unwrap(), Some(0));
    assert_eq!(database.delete_tenant(&name("a")).await.unwrap(), None);
    database.create_tenant(&tenant("a", json!({}))).await.unwrap();
    let after = database.tenant(&name("a")).await.unwrap().unwrap();
    assert!(after.slot > before.slot && after.version > before.version);
    assert!(register_one(&*database, new_client("a", 1, &confidential()), NOW).await.is_ok());
}

async fn two_changes_to_one_tenant_at_the_same_time_both_count(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({}))).await.unwrap();
    let stale = database.tenant(&name("a")).await.unwrap().unwrap();
    set(&*database, "a", json!({"client_quota": 3})).await;
    assert!(!database.replace_tenant(&stale).await.unwrap());
    let change = |host: &'static str| {
        let database = Arc::clone(&database);
        async move {
            let add = |mut tenant: Tenant| {
                tenant.domains.push(host.parse().unwrap());
                Ok::<_, Error>(tenant)
            };
            update_tenant(&*database, &name("a"), add).await.unwrap().unwrap()
        }
    };
    tokio::join!(change("x.example"), change("y.example"), change("z.example"));
    let after = database.tenant(&name("a")).await.unwrap().unwrap().tenant;
    assert_eq!((after.domains.len(), after.settings.dcr_edge.client_quota.unwrap().get()), (5, 3));
}

async fn the_first_signing_key_stays(database: Arc<dyn Database>) {
    let (a, b) = tokio::join!(database.signing_key_seed([1; 32]), database.signing_key_seed([2; 32]));
    assert_eq!(a.unwrap(), b.unwrap());
    let kept = database.signing_key_seed([3; 32]).await.unwrap();
    assert_ne!(kept, [3; 32]);
}

async fn a_registration_that_is_repeated_changes_nothing(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({}))).await.unwrap();
    for (number, registration) in [(1, confidential()), (2, public())] {
        let again = || new_client("a", number, &registration);
        assert_eq!(register_one(&*database, again(), NOW).await, registered(number, NOW, true));
        assert_eq!(register_one(&*database, again(), NOW + 9).await, registered(number, NOW, false));
    }
    let twice = [new_client("a", 3, &public()), new_client("a", 3, &public())];
    assert_eq!(register(&*database, &twice, NOW).await, [registered(3, NOW, true), registered(3, NOW, false)]);
}

async fn an_id_belongs_to_one_client_only(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({}))).await.unwrap();
    database.create_tenant(&tenant("b", json!({}))).await.unwrap();
    let first = || new_client("a", 1, &confidential());
    register_one(&*database, first(), NOW).await.unwrap();
    let mut other_name = confidential();
    other_name["metadata"]["client_name"] = json!("Other");
    let others = [
        new_client("b", 1, &confidential()),
        new_client("a", 1, &other_name),
        NewClient { client_secret_sha256: Some([0; 32]), ..first() },
        new_client("a", 1, &public()),
    ];
    for answer in register(&*database, &others, NOW).await {
        assert_eq!(answer, Err(Refusal::Conflict));
    }
    let both_new = [new_client("a", 2, &confidential()), new_client("a", 2, &other_name)];
    assert_eq!(register(&*database, &both_new, NOW).await, [registered(2, NOW, true), Err(Refusal::Conflict)]);
    assert_eq!(register_one(&*database, first(), NOW).await, registered(1, NOW, false));
}

async fn each_registration_of_a_batch_fails_by_itself(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({}))).await.unwrap();
    let mut off = tenant("off", json!({}));
    off.settings.flags.enable_dynamic_client_registration = false;
    database.create_tenant(&off).await.unwrap();
    let batch = [
        new_client("a", 1, &confidential()),
        new_client("off", 2, &confidential()),
        new_client("nobody", 3, &confidential()),
        new_client("a", 4, &json!({"client_secret_sha256": "", "metadata": {"client_name": "Test"}})),
        new_client("a", 5, &public()),
    ];
    let answers = register(&*database, &batch, NOW).await;
    assert_eq!(answers[0], registered(1, NOW, true));
    assert_eq!(answers[1], Err(Refusal::Disabled));
    assert_eq!(answers[2], Err(Refusal::UnknownTenant));
    assert!(matches!(&answers[3], Err(Refusal::Invalid(reason)) if reason.error == ErrorCode::InvalidRedirectUri));
    assert_eq!(answers[4], registered(5, NOW, true));
}

async fn what_an_edge_accepted_is_checked_under_the_settings_of_this_moment(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({}))).await.unwrap();
    register_one(&*database, new_client("a", 1, &confidential()), NOW).await.unwrap();
    let switch_off = |mut tenant: Tenant| {
        tenant.settings.flags.enable_dynamic_client_registration = false;
        Ok::<_, Error>(tenant)
    };
    update_tenant(&*database, &name("a"), switch_off).await.unwrap();
    let answer = register_one(&*database, new_client("a", 2, &confidential()), NOW).await;
    assert_eq!(answer, Err(Refusal::Disabled));
}

async fn a_secret_is_there_exactly_if_the_client_is_confidential(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({}))).await.unwrap();
    let without = NewClient { client_secret_sha256: None, ..new_client("a", 1, &confidential()) };
    let with = NewClient { client_secret_sha256: Some([1; 32]), ..new_client("a", 2, &public()) };
    for answer in register(&*database, &[without, with], NOW).await {
        assert_eq!(answer, Err(Refusal::SecretMismatch));
    }
}

async fn equal_public_clients_are_folded_only_if_the_tenant_says_so(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({}))).await.unwrap();
    database.create_tenant(&tenant("b", json!({"deduplicate_public_clients": true}))).await.unwrap();
    let client = |tenant, number| new_client(tenant, number, &public());
    assert_eq!(register_one(&*database, client("a", 1), NOW).await, registered(1, NOW, true));
    assert_eq!(register_one(&*database, client("a", 2), NOW + 1).await, registered(2, NOW + 1, true));

    // Another tenant's clients are none of its own.
    let twice = [client("b", 3), client("b", 4)];
    assert_eq!(register(&*database, &twice, NOW).await, [registered(3, NOW, true), registered(3, NOW, false)]);
    assert_eq!(register_one(&*database, client("b", 5), NOW + 2).await, registered(3, NOW, false));
    let mut other = public();
    other["metadata"]["client_name"] = json!("Other");
    assert_eq!(register_one(&*database, new_client("b", 6, &other), NOW).await, registered(6, NOW, true));

    // Once switched on, the clients from before count, the oldest first.
    set(&*database, "a", json!({"deduplicate_public_clients": true})).await;
    assert_eq!(register_one(&*database, client("a", 7), NOW + 3).await, registered(1, NOW, false));
    assert_eq!(register_one(&*database, client("a", 2), NOW + 4).await, registered(2, NOW + 1, false));
}

async fn confidential_clients_are_never_folded(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({"deduplicate_public_clients": true}))).await.unwrap();
    for number in [1, 2] {
        let answer = register_one(&*database, new_client("a", number, &confidential()), NOW).await;
        assert_eq!(answer, registered(number, NOW, true));
    }
}

async fn a_quota_refuses_what_is_too_much(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({"client_quota": 2}))).await.unwrap();
    database.create_tenant(&tenant("b", json!({}))).await.unwrap();
    let batch = [1, 2, 3].map(|number| new_client("a", number, &confidential()));
    let answers = register(&*database, &batch, NOW).await;
    assert_eq!(answers, [registered(1, NOW, true), registered(2, NOW, true), Err(Refusal::QuotaUsedUp)]);
    // However old they are: nobody can push out the clients that are there.
    let later = NOW + 366 * 24 * 60 * 60;
    let full = register_one(&*database, new_client("a", 4, &confidential()), later).await;
    assert_eq!(full, Err(Refusal::QuotaUsedUp));
    assert!(Refusal::QuotaUsedUp.to_string().starts_with("the tenant's client quota is used up"));
    assert!(register_one(&*database, new_client("b", 5, &confidential()), later).await.is_ok());
    set(&*database, "a", json!({"client_quota": 3})).await;
    assert!(register_one(&*database, new_client("a", 6, &confidential()), later).await.is_ok());
}

async fn a_full_quota_lets_a_repeated_registration_pass(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({"client_quota": 1}))).await.unwrap();
    register_one(&*database, new_client("a", 1, &confidential()), NOW).await.unwrap();
    let batch = [new_client("a", 2, &confidential()), new_client("a", 1, &confidential())];
    let answers = register(&*database, &batch, NOW + 1).await;
    assert_eq!(answers, [Err(Refusal::QuotaUsedUp), registered(1, NOW, false)]);
}

async fn a_reader_without_a_memory_is_told_everything(database: Arc<dyn Database>) {
    let empty = database.changes(0, None).await.unwrap();
    assert!(empty.full && !empty.more && empty.tenants.is_empty());
    for letter in ["a", "b", "c"] {
        database.create_tenant(&tenant(letter, json!({}))).await.unwrap();
    }
    database.delete_tenant(&name("b")).await.unwrap();
    let told = database.changes(0, None).await.unwrap();
    assert!(told.full && !told.more);
    assert_eq!(told.head, 4);
    let tenants: Vec<Tenant> = told
        .tenants
        .iter()
        .map(|change| serde_json::from_str(change.tenant.as_ref().unwrap().get()).unwrap())
        .collect();
    assert_eq!(tenants, [tenant("a", json!({})), tenant("c", json!({}))]);
}

async fn a_reader_is_told_what_changed_and_nothing_else(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({}))).await.unwrap();
    database.create_tenant(&tenant("b", json!({}))).await.unwrap();
    let start = database.changes(0, None).await.unwrap();
    let since = async |after| database.changes(after, Some(&start.instance)).await.unwrap();
    let nothing = since(start.head).await;
    assert!(!nothing.full && nothing.tenants.is_empty() && nothing.head == start.head);

    set(&*database, "a", json!({"client_quota": 1})).await;
    set(&*database, "a", json!({"client_quota": 2})).await;
    // What changes nothing is no change.
    set(&*database, "b", json!({})).await;
    let changed = since(start.head).await;
    assert_eq!((changed.full, changed.more, changed.tenants.len()), (false, false, 1));
    assert_eq!((changed.head, changed.tenants[0].version), (start.head + 2, start.head + 2));
    assert!(changed.tenants[0].tenant.as_ref().unwrap().get().contains(r#""client_quota":2"#));

    database.delete_tenant(&name("b")).await.unwrap();
    let deleted = since(changed.head).await;
    assert_eq!((deleted.tenants[0].slot, deleted.tenants[0].tenant.is_none()), (2, true));
    register_one(&*database, new_client("a", 1, &confidential()), NOW).await.unwrap();
    assert_eq!(since(deleted.head).await.tenants.len(), 0);
}

async fn a_reader_of_another_database_or_of_the_future_is_told_everything(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({}))).await.unwrap();
    let start = database.changes(0, None).await.unwrap();
    let other = database.changes(start.head, Some("another")).await.unwrap();
    let future = database.changes(start.head + 1, Some(&start.instance)).await.unwrap();
    for told in [other, future] {
        assert_eq!((told.full, told.tenants.len(), told.head), (true, 1, start.head));
    }
    assert!(database.changes(u64::MAX, Some(&start.instance)).await.unwrap().full);
}

async fn a_long_telling_comes_in_pages_and_misses_no_change_between_them(database: Arc<dyn Database>) {
    let origins: Vec<String> = (0..1_000).map(|number| format!("https://origin-{number:0>30}.example")).collect();
    let letters = ["a", "b", "c", "d", "e", "f", "g", "h"];
    for letter in letters {
        database.create_tenant(&tenant(letter, json!({"cors_origins": origins}))).await.unwrap();
    }
    let mut page = database.changes(0, None).await.unwrap();
    assert!(page.full && page.more);
    assert_eq!(page.head, page.tenants.last().unwrap().version);
    let mut told: Vec<u32> = page.tenants.iter().map(|change| change.slot).collect();
    // One that was told already, and one that was not.
    set(&*database, "a", json!({"client_quota": 1})).await;
    database.delete_tenant(&name("h")).await.unwrap();
    while page.more {
        page = database.changes(page.head, Some(&page.instance)).await.unwrap();
        assert!(!page.full);
        told.extend(page.tenants.iter().map(|change| change.slot));
    }
    assert_eq!(page.head, 10);
    assert_eq!(told, [1, 2, 3, 4, 5, 6, 7, 1, 8]);
    assert!(page.tenants.last().unwrap().tenant.is_none());
}

async fn deleting_a_tenant_deletes_its_clients(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({}))).await.unwrap();
    database.create_tenant(&tenant("b", json!({}))).await.unwrap();
    let batch = [1, 2, 3].map(|number| new_client(if number < 3 { "a" } else { "b" }, number, &confidential()));
    register(&*database, &batch, NOW).await;
    assert_eq!(database.delete_tenant(&name("a")).await.unwrap(), Some(2));
    let gone = register_one(&*database, new_client("a", 4, &confidential()), NOW).await;
    assert_eq!(gone, Err(Refusal::UnknownTenant));
    let kept = register_one(&*database, new_client("b", 3, &confidential()), NOW + 1).await;
    assert_eq!(kept, registered(3, NOW, false));
}
