//! The rules that every database keeps, through the trait that the store uses.

use std::sync::Arc;
use std::time::Duration;

use dcr_edge::acl::NetworkAcl;
use dcr_edge::edge_api::RegisteredBy;
use dcr_edge::management::Permission;
use dcr_edge::registration::ErrorCode;
use dcr_edge::store::admission::{NewClient, Refusal};
use dcr_edge::store::client::{AppType, ClientData, OwnerData};
use dcr_edge::store::client_upkeep;
use dcr_edge::store::clock::{BootId, Now, Steady};
use dcr_edge::store::db::{
    Arrival, Database, DocumentKind, DocumentQuery, Error, IfMissing, LogFilter, LogOrder, LogQuery, MadeClient,
    NewAcl, Registered, SignInLink, StoredAcl, StoredClient, StoredKey, StoredTenant, acl_id, default_permissions,
    permitted_client, update_client, update_known_tenant, update_network_acl, update_tenant,
};
use dcr_edge::store::log_upkeep;
use dcr_edge::tenant::{Name, SecurityMode, Snapshot, Tenant};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::support::postgres::Server;
use crate::support::process::PATIENCE;
use crate::support::store::{Folder, client_id, confidential, permissive_id, public, runtime};

/// When the tests happen, in UNIX seconds.
const NOW: u64 = 1_700_000_000;

/// Seconds of a day.
const DAY: u64 = 24 * 60 * 60;

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

        mod postgres {
            use super::{IfMissing, Server, runtime};

            $(#[test]
            fn $rule() {
                let Some(server) = Server::shared() else { return };
                let url = server.create_database();
                runtime().block_on(async {
                    let database = dcr_edge::store::open(&url, IfMissing::Create).await.unwrap();
                    super::$rule(std::sync::Arc::clone(&database)).await;
                    database.close().await;
                });
            })*
        }
    };
}

rules! {
    a_name_and_a_host_belong_to_one_tenant_only
    a_deleted_tenant_frees_its_name_and_hosts_but_never_its_slot
    two_changes_to_one_tenant_at_the_same_time_both_count
    the_first_signing_key_stays
    a_rotation_keeps_the_new_signing_key_and_the_one_before
    a_registration_that_is_repeated_changes_nothing
    an_id_belongs_to_one_client_only
    each_registration_of_a_batch_fails_by_itself
    what_an_edge_accepted_is_checked_under_the_settings_of_this_moment
    a_secret_is_there_exactly_if_the_client_is_confidential
    equal_public_clients_are_folded_only_if_the_tenant_says_so
    confidential_clients_are_never_folded
    a_client_is_of_the_mode_of_the_moment_and_its_id_says_so
    public_clients_are_never_folded_across_modes
    a_quota_refuses_what_is_too_much
    a_full_quota_lets_a_repeated_registration_pass
    a_reader_without_a_memory_is_told_everything
    a_reader_is_told_what_changed_and_nothing_else
    a_reader_of_another_database_or_of_the_future_is_told_everything
    a_long_telling_comes_in_pages_and_misses_no_change_between_them
    deleting_a_tenant_deletes_its_clients
    a_batch_takes_as_many_tokens_as_the_fleet_has_and_one_tenants_are_none_of_anothers
    a_repeated_registration_takes_no_token_and_is_never_refused
    a_refusal_by_the_limit_leaves_no_client_and_takes_no_quota
    a_full_quota_takes_no_token
    a_changed_limit_counts_from_the_change_on
    each_registration_of_a_batch_is_judged_by_when_it_arrived
    a_store_that_read_the_clock_before_it_waited_gives_no_token_back
    a_bucket_of_another_boot_keeps_what_it_holds_and_waits_for_the_rest_from_then_on
    a_limit_that_is_changed_after_another_boot_gives_no_token
    access_rules_stand_in_the_order_of_priority_and_then_of_creation
    an_access_rule_without_a_priority_comes_last
    a_stale_change_of_an_access_rule_is_not_written
    two_changes_to_one_access_rule_at_the_same_time_both_count
    an_access_rule_of_another_tenant_is_out_of_reach
    a_reader_is_told_the_active_access_rules_in_the_order_of_evaluation
    only_what_alters_the_list_of_active_rules_is_told
    a_page_of_the_feed_has_the_large_rules_of_one_tenant_at_most
    a_change_to_a_tenant_that_is_another_by_now_is_not_made
    user_agents_with_wildcards_have_an_end_in_active_rules
    a_tenant_redirects_to_no_host_of_its_own
    every_page_of_clients_has_those_that_come_next_in_the_order_of_creation
    a_stale_change_of_a_client_is_not_written
    two_changes_to_one_client_at_the_same_time_both_count
    a_client_of_another_tenant_is_out_of_reach
    a_clients_permissions_are_by_its_own_grants_and_its_tenants_defaults
    what_a_clients_permissions_say_of_an_api_is_what_the_api_says
    grants_for_one_client_and_by_default_have_an_end
    only_the_uses_of_the_clients_that_are_named_are_noted_and_they_are_no_change
    no_registration_is_folded_into_a_client_that_the_owner_made_or_changed
    a_deleted_tenant_has_no_clients_and_gets_none
    a_full_quota_lets_the_oldest_unused_clients_give_way_and_no_more_than_needed
    only_old_clients_that_registered_themselves_and_that_nobody_used_give_way
    a_registration_that_the_limit_refuses_makes_nobody_give_way
    a_client_that_a_batch_answers_with_does_not_give_way_in_it
    a_quota_that_was_lowered_is_kept_by_whoever_is_let_in
    each_tenant_loses_its_own_clients_only_and_its_log_says_which
    a_client_that_was_answered_again_is_as_young_as_its_last_answer
    a_client_that_its_owner_changed_never_gives_way
    a_batch_has_only_so_many_clients_give_way_and_the_next_one_has_room
    a_tenant_far_above_its_quota_is_let_in_once_the_upkeep_brought_it_down
    clients_of_a_tenant_that_answers_for_no_host_yet_stay
    the_upkeep_of_clients_begins_one_interval_after_the_start
    unused_clients_live_as_long_as_their_tenant_wants
    a_registration_without_a_default_grant_is_logged_with_a_warning
    a_search_in_a_log_finds_members_values_and_moments
    access_rules_are_put_into_another_order_at_once_and_share_the_priorities_that_there_are
    an_order_of_other_access_rules_than_there_are_is_not_made
    clients_are_found_by_their_id_or_a_part_of_their_name_the_newest_first
    what_happened_to_registrations_is_told_by_slices_of_time
    a_link_signs_in_once_and_only_in_its_time
}

fn at(unix_seconds: u64) -> Now {
    at_boot(1, unix_seconds)
}

/// The same seconds after the boot with this number and after the beginning of UNIX.
fn at_boot(boot: u8, seconds: u64) -> Now {
    let steady = Steady { boot: BootId([boot; 16]), nanos: seconds * 1_000_000_000 };
    Now { unix_seconds: seconds, steady }
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
        registered_by: RegisteredBy::Edge,
        tenant: name(tenant),
        client_id: client_id(number),
        client_secret_sha256: registration.get("client_secret_sha256").map(|_| [0xab; 32]),
        metadata: serde_json::value::to_raw_value(&registration["metadata"]).unwrap(),
        origin: Default::default(),
        request_id: None,
    }
}

fn registered(number: usize, issued_at: u64, created: bool) -> Result<Registered, Refusal> {
    Ok(Registered { client_id: client_id(number), issued_at, created })
}

async fn register(database: &dyn Database, batch: &[NewClient], now: u64) -> Vec<Result<Registered, Refusal>> {
    register_at(database, batch, at(now)).await
}

async fn register_at(database: &dyn Database, batch: &[NewClient], at: Now) -> Vec<Result<Registered, Refusal>> {
    let batch: Vec<_> = batch.iter().map(|client| Arrival { client: client.clone(), at }).collect();
    database.register(&batch).await.unwrap()
}

async fn register_one(database: &dyn Database, client: NewClient, now: u64) -> Result<Registered, Refusal> {
    register(database, &[client], now).await.remove(0)
}

async fn set(database: &dyn Database, tenant: &str, dcr_edge: Value) {
    set_at(database, tenant, dcr_edge, at(NOW)).await;
}

async fn set_at(database: &dyn Database, tenant: &str, dcr_edge: Value, now: Now) {
    let change = |tenant: Tenant| {
        let mut settings = tenant.settings.clone();
        settings.dcr_edge = serde_json::from_value(dcr_edge.clone()).unwrap();
        Ok::<_, Error>(Tenant { settings, ..tenant })
    };
    update_tenant(database, &name(tenant), now, change).await.unwrap().unwrap();
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
    assert!(!database.replace_tenant(&stale, at(NOW)).await.unwrap());
    let change = |host: &'static str| {
        let database = Arc::clone(&database);
        async move {
            let add = |mut tenant: Tenant| {
                tenant.domains.push(host.parse().unwrap());
                Ok::<_, Error>(tenant)
            };
            update_tenant(&*database, &name("a"), at(NOW), add).await.unwrap().unwrap()
        }
    };
    tokio::join!(change("x.example"), change("y.example"), change("z.example"));
    let after = database.tenant(&name("a")).await.unwrap().unwrap().tenant;
    assert_eq!((after.domains.len(), after.settings.dcr_edge.client_quota.unwrap().get()), (5, 3));
}

fn signing_key(number: u8) -> StoredKey {
    StoredKey { seed: [number; 32], created_at: Some(number.into()) }
}

async fn the_first_signing_key_stays(database: Arc<dyn Database>) {
    assert!(database.signing_keys().await.unwrap().is_empty());
    let (a, b) = tokio::join!(database.ensure_signing_key(signing_key(1)), database.ensure_signing_key(signing_key(2)));
    let kept = a.unwrap();
    assert!(kept.len() == 1 && kept == b.unwrap());
    assert!(database.ensure_signing_key(signing_key(3)).await.unwrap() == kept);
    assert!(database.signing_keys().await.unwrap() == kept);
}

async fn a_rotation_keeps_the_new_signing_key_and_the_one_before(database: Arc<dyn Database>) {
    for (number, before, retired) in [(1, None, None), (2, Some(1), None), (3, Some(2), Some(1)), (4, Some(3), Some(2))]
    {
        let rotation = database.rotate_signing_keys(signing_key(number)).await.unwrap();
        let in_use: Vec<StoredKey> = [Some(number), before].into_iter().flatten().map(signing_key).collect();
        assert!(rotation.keys == in_use && database.signing_keys().await.unwrap() == in_use);
        assert!(rotation.retired == retired.into_iter().map(signing_key).collect::<Vec<_>>());
    }
    assert!(database.ensure_signing_key(signing_key(5)).await.unwrap()[0] == signing_key(4));
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
    update_tenant(&*database, &name("a"), at(NOW), switch_off).await.unwrap();
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

async fn set_mode(database: &dyn Database, tenant: &str, mode: SecurityMode) {
    let change = |mut tenant: Tenant| {
        tenant.settings.dynamic_client_registration_security_mode = mode;
        Ok::<_, Error>(tenant)
    };
    update_tenant(database, &name(tenant), at(NOW), change).await.unwrap().unwrap();
}

/// The same with an id of the permissive mode.
fn permissive_client(tenant: &str, number: usize, registration: &Value) -> NewClient {
    NewClient { client_id: permissive_id(number), ..new_client(tenant, number, registration) }
}

async fn a_client_is_of_the_mode_of_the_moment_and_its_id_says_so(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({}))).await.unwrap();
    let slot = database.tenant(&name("a")).await.unwrap().unwrap().slot;
    let mode_of = async |id: &str| database.client(slot, id).await.unwrap().map(|client| client.security_mode);
    let mut machine = confidential();
    machine["metadata"] = json!({"grant_types": ["client_credentials"]});
    let strict = |number| new_client("a", number, &confidential());
    let permissive = |number| permissive_client("a", number, &machine);
    register_one(&*database, strict(1), NOW).await.unwrap();
    assert_eq!(register_one(&*database, permissive(2), NOW).await, Err(Refusal::OtherMode));

    set_mode(&*database, "a", SecurityMode::Permissive).await;
    register_one(&*database, permissive(2), NOW).await.unwrap();
    // An edge that has not heard of it yet checks more than it has to.
    register_one(&*database, strict(3), NOW).await.unwrap();
    let wrong = NewClient { client_id: client_id(5), ..permissive(5) };
    assert!(matches!(register_one(&*database, wrong, NOW).await, Err(Refusal::Invalid(_))));
    assert_eq!(register_one(&*database, permissive(2), NOW + 1).await.unwrap().issued_at, NOW);

    // What a client is, it stays.
    set_mode(&*database, "a", SecurityMode::Strict).await;
    assert_eq!(register_one(&*database, permissive(4), NOW).await, Err(Refusal::OtherMode));
    for number in [1, 3] {
        assert_eq!(mode_of(&client_id(number)).await, Some(SecurityMode::Strict));
    }
    assert_eq!(mode_of(&permissive_id(2)).await, Some(SecurityMode::Permissive));
    assert_eq!((mode_of(&client_id(5)).await, mode_of(&permissive_id(4)).await), (None, None));
}

async fn public_clients_are_never_folded_across_modes(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({"deduplicate_public_clients": true}))).await.unwrap();
    register_one(&*database, new_client("a", 1, &public()), NOW).await.unwrap();
    set_mode(&*database, "a", SecurityMode::Permissive).await;
    let permissive = async |number| register_one(&*database, permissive_client("a", number, &public()), NOW).await;
    let registered_as = |number, created| Ok(Registered { client_id: permissive_id(number), issued_at: NOW, created });
    assert_eq!(permissive(2).await, registered_as(2, true));
    assert_eq!(permissive(3).await, registered_as(2, false));
    set_mode(&*database, "a", SecurityMode::Strict).await;
    assert_eq!(register_one(&*database, new_client("a", 4, &public()), NOW).await, registered(1, NOW, false));
}

async fn a_quota_refuses_what_is_too_much(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({"client_quota": 2}))).await.unwrap();
    database.create_tenant(&tenant("b", json!({}))).await.unwrap();
    let batch = [1, 2, 3].map(|number| new_client("a", number, &confidential()));
    let answers = register(&*database, &batch, NOW).await;
    assert_eq!(answers, [registered(1, NOW, true), registered(2, NOW, true), Err(Refusal::QuotaUsedUp)]);
    // Nobody can push out clients that are used.
    let later = NOW + 366 * DAY;
    for number in [1, 2] {
        database.note_client_uses(&[(1, client_id(number))], NOW * 1_000).await.unwrap();
    }
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

fn limited(burst: u32, per_second: u32) -> Value {
    json!({"rate_limit": {"burst": burst, "per_second": per_second}})
}

fn outcomes(answers: &[Result<Registered, Refusal>]) -> Vec<&'static str> {
    let outcome = |answer: &Result<Registered, Refusal>| match answer {
        Ok(registered) if registered.created => "created",
        Ok(_) => "there",
        Err(refusal) => refusal.outcome(),
    };
    answers.iter().map(outcome).collect()
}

async fn a_batch_takes_as_many_tokens_as_the_fleet_has_and_one_tenants_are_none_of_anothers(
    database: Arc<dyn Database>,
) {
    database.create_tenant(&tenant("a", limited(2, 1))).await.unwrap();
    database.create_tenant(&tenant("b", limited(1, 1))).await.unwrap();
    let batch: Vec<_> =
        (0..8).map(|number| new_client(if number % 2 == 0 { "a" } else { "b" }, number, &confidential())).collect();
    let answers = register(&*database, &batch, NOW).await;
    let (new, not) = ("created", "rate_limited");
    assert_eq!(outcomes(&answers), [new, new, new, new, new, not, not, not]);
    assert_eq!(answers[7], Err(Refusal::RateLimited { next_token_in: 1_000_000_000 }));
    let more = [8, 9].map(|number| new_client("a", number, &confidential()));
    assert_eq!(outcomes(&register(&*database, &more, NOW + 1).await), [new, not]);
}

async fn a_repeated_registration_takes_no_token_and_is_never_refused(database: Arc<dyn Database>) {
    let folds = json!({"rate_limit": {"burst": 1, "per_second": 1}, "deduplicate_public_clients": true});
    database.create_tenant(&tenant("a", folds)).await.unwrap();
    let again = || new_client("a", 1, &confidential());
    let twice = [again(), again(), new_client("a", 2, &public()), new_client("a", 3, &public())];
    assert_eq!(outcomes(&register(&*database, &twice, NOW).await), ["created", "there", "created", "there"]);
    let batch = [new_client("a", 4, &confidential()), again(), new_client("a", 5, &public())];
    assert_eq!(outcomes(&register(&*database, &batch, NOW).await), ["rate_limited", "there", "there"]);
    let other = NewClient { client_secret_sha256: Some([0; 32]), ..again() };
    assert_eq!(register_one(&*database, other, NOW).await, Err(Refusal::Conflict));
    for _ in 0..5 {
        assert!(register_one(&*database, again(), NOW + 1).await.is_ok());
    }
    assert_eq!(outcomes(&register(&*database, &[new_client("a", 4, &confidential())], NOW + 1).await), ["created"]);
}

async fn a_refusal_by_the_limit_leaves_no_client_and_takes_no_quota(database: Arc<dyn Database>) {
    let settings = json!({"rate_limit": {"burst": 1, "per_second": 1}, "client_quota": 3});
    database.create_tenant(&tenant("a", settings)).await.unwrap();
    let batch = [1, 2, 3, 3].map(|number| new_client("a", number, &confidential()));
    let answers = register(&*database, &batch, NOW).await;
    assert_eq!(outcomes(&answers), ["created", "created", "rate_limited", "rate_limited"]);
    let answers = register(&*database, &batch[2..3], NOW + 10).await;
    assert_eq!(answers, [registered(3, NOW + 10, true)]);
    assert_eq!(outcomes(&register(&*database, &[new_client("a", 4, &public())], NOW + 10).await), ["quota"]);
}

async fn a_full_quota_takes_no_token(database: Arc<dyn Database>) {
    let mut settings = json!({"rate_limit": {"burst": 1, "per_second": 1}, "client_quota": 1});
    database.create_tenant(&tenant("a", settings.clone())).await.unwrap();
    let batch = [1, 2, 3].map(|number| new_client("a", number, &confidential()));
    assert_eq!(outcomes(&register(&*database, &batch, NOW).await), ["created", "quota", "quota"]);
    settings["client_quota"] = json!(9);
    set(&*database, "a", settings).await;
    assert_eq!(outcomes(&register(&*database, &batch, NOW).await), ["there", "created", "rate_limited"]);
}

async fn a_changed_limit_counts_from_the_change_on(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", limited(1, 1))).await.unwrap();
    let batch: Vec<_> = (0..9).map(|number| new_client("a", number, &confidential())).collect();
    register(&*database, &batch, NOW).await;
    set(&*database, "a", limited(3, 1)).await;
    let answers = register(&*database, &batch, NOW).await;
    let created = |answers: &[_]| outcomes(answers).into_iter().filter(|outcome| *outcome == "created").count();
    // Two more tokens than before; those that were spent stay spent.
    assert_eq!(created(&answers), 2);

    database.create_tenant(&tenant("b", limited(600, 1))).await.unwrap();
    let many: Vec<_> = (100..500).map(|number| new_client("b", number, &confidential())).collect();
    assert_eq!(created(&register(&*database, &many, NOW).await), 400);
    set(&*database, "b", limited(2, 2)).await;
    // Not only from the next registration on: an edge that refused one meanwhile knew the new limit then.
    let later: Vec<_> = (500..510).map(|number| new_client("b", number, &confidential())).collect();
    assert_eq!(created(&register(&*database, &later, NOW + 1).await), 2);
}

async fn each_registration_of_a_batch_is_judged_by_when_it_arrived(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", limited(1, 1))).await.unwrap();
    let arrivals: Vec<_> = [0, 0, 0, 1, 1, 3, 3, 3]
        .into_iter()
        .zip(0..)
        .map(|(second, number)| Arrival { client: new_client("a", number, &confidential()), at: at(NOW + second) })
        .collect();
    let answers = database.register(&arrivals).await.unwrap();
    let (new, not) = ("created", "rate_limited");
    assert_eq!(outcomes(&answers), [new, new, not, new, not, new, new, not]);
    assert_eq!([&answers[3], &answers[6]], [&registered(3, NOW + 1, true), &registered(6, NOW + 3, true)]);
}

async fn a_store_that_read_the_clock_before_it_waited_gives_no_token_back(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", limited(1, 1))).await.unwrap();
    let clients: Vec<_> = (0..20).map(|number| new_client("a", number, &confidential())).collect();
    assert_eq!(outcomes(&register(&*database, &clients[..3], NOW).await), ["created", "created", "rate_limited"]);
    for (lag, pair) in [1, 5, 3_600].into_iter().zip(clients[4..].chunks(2)) {
        let refused = register(&*database, pair, NOW - lag).await;
        assert_eq!(refused, vec![Err(Refusal::RateLimited { next_token_in: (lag + 1) * 1_000_000_000 }); 2]);
        assert_eq!(outcomes(&register(&*database, pair, NOW).await), ["rate_limited"; 2]);
    }
    // Nor does a change of the limit that waited.
    set_at(&*database, "a", limited(2, 1), at(NOW - 3_600)).await;
    assert_eq!(outcomes(&register(&*database, &clients[..4], NOW).await)[2..], ["created", "rate_limited"]);
}

async fn a_bucket_of_another_boot_keeps_what_it_holds_and_waits_for_the_rest_from_then_on(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", limited(2, 1))).await.unwrap();
    let clients: Vec<_> = (0..20).map(|number| new_client("a", number, &confidential())).collect();
    let (new, not) = ("created", "rate_limited");
    let outcomes_at =
        async |clients: &[NewClient], now| outcomes(&register_at(&*database, clients, now).await).join(" ");
    assert_eq!(outcomes_at(&clients[..2], at_boot(1, 1_000)).await, [new, new].join(" "));
    // Whether the new clock shows less or more.
    assert_eq!(outcomes_at(&clients[2..4], at_boot(2, 5)).await, [new, not].join(" "));
    assert_eq!(outcomes_at(&clients[3..5], at_boot(3, 9_000)).await, [not, not].join(" "));
    assert_eq!(outcomes_at(&clients[3..5], at_boot(3, 9_001)).await, [new, not].join(" "));
    assert_eq!(outcomes_at(&clients[5..9], at_boot(3, 9_009)).await, [new, new, new, not].join(" "));
}

async fn a_limit_that_is_changed_after_another_boot_gives_no_token(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", limited(2, 1))).await.unwrap();
    let clients: Vec<_> = (0..20).map(|number| new_client("a", number, &confidential())).collect();
    register_at(&*database, &clients[..3], at_boot(1, 1_000)).await;
    // A token more there can be from the second change on.
    for (boot, now, burst, outcome) in [(2, 5, 2, "rate_limited"), (3, 9_000, 3, "created")] {
        set_at(&*database, "a", limited(burst, 2), at_boot(boot, now)).await;
        let answers = register_at(&*database, &clients[3..5], at_boot(boot, now)).await;
        assert_eq!(outcomes(&answers), [outcome, "rate_limited"], "{boot}");
    }
}

fn acl(description: &str, priority: Option<u32>, rule: Value) -> NetworkAcl {
    let acl = json!({"description": description, "active": true, "priority": priority, "rule": rule});
    serde_json::from_value(acl).unwrap()
}

fn block_asn(asn: u32) -> Value {
    json!({"action": {"block": true}, "match": {"asns": [asn]}, "scope": "tenant"})
}

async fn slot(database: &dyn Database, tenant: &str) -> u32 {
    database.tenant(&name(tenant)).await.unwrap().unwrap().slot
}

async fn create_acl(database: &dyn Database, tenant: u32, acl: &NetworkAcl) -> Result<StoredAcl, Error> {
    database.create_network_acl(tenant, &acl_id().unwrap(), &new(acl), NOW * 1_000).await.map(Option::unwrap)
}

fn new(acl: &NetworkAcl) -> NewAcl {
    NewAcl::new(acl).unwrap()
}

async fn descriptions(database: &dyn Database, tenant: u32) -> Vec<String> {
    let page = database.network_acls(tenant, 0, 100).await.unwrap();
    assert_eq!(page.total, page.acls.len() as u64);
    page.acls.into_iter().map(|acl| acl.description).collect()
}

async fn access_rules_stand_in_the_order_of_priority_and_then_of_creation(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({}))).await.unwrap();
    let mut created = Vec::new();
    for (description, priority) in [("third", 5), ("first", 1), ("fourth", 5), ("second", 1)] {
        let acl = acl(description, Some(priority), block_asn(1));
        created.push(create_acl(&*database, 1, &acl).await.unwrap());
    }
    assert_eq!(descriptions(&*database, 1).await, ["first", "second", "third", "fourth"]);
    let page = database.network_acls(1, 1, 2).await.unwrap();
    let shown: Vec<&str> = page.acls.iter().map(|acl| acl.description.as_str()).collect();
    assert_eq!((shown, page.total), (vec!["second", "third"], 4));
    assert!(database.network_acls(1, 4, 2).await.unwrap().acls.is_empty());
    // A change is no new creation.
    let changed = acl("still first", Some(1), block_asn(2));
    database.replace_network_acl(1, &created[1], &new(&changed), NOW).await.unwrap().unwrap();
    database.delete_network_acl(1, &created[2].id).await.unwrap();
    database.delete_network_acl(1, &created[2].id).await.unwrap();
    assert_eq!(descriptions(&*database, 1).await, ["still first", "second", "third"]);
}

async fn an_access_rule_without_a_priority_comes_last(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({}))).await.unwrap();
    database.create_tenant(&tenant("b", json!({}))).await.unwrap();
    let create = async |tenant, priority| {
        create_acl(&*database, tenant, &acl("d", priority, block_asn(1))).await.unwrap().priority
    };
    assert_eq!([create(1, None).await, create(1, Some(7)).await, create(1, None).await], [0, 7, 8]);
    assert_eq!(create(2, None).await, 0);
    assert_eq!([create(1, Some(2_147_483_647)).await, create(1, None).await], [2_147_483_647; 2]);
}

async fn a_stale_change_of_an_access_rule_is_not_written(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({}))).await.unwrap();
    let stored = create_acl(&*database, 1, &acl("one", Some(3), block_asn(1))).await.unwrap();
    assert_eq!((stored.created_at, stored.updated_at), (NOW * 1_000, NOW * 1_000));
    let second = new(&acl("two", None, block_asn(2)));
    let after = database.replace_network_acl(1, &stored, &second, NOW * 1_000 + 7).await.unwrap().unwrap();
    assert_eq!((after.priority, after.created_at, after.updated_at), (3, NOW * 1_000, NOW * 1_000 + 7));
    assert!(database.replace_network_acl(1, &stored, &second, NOW).await.unwrap().is_none());
    database.delete_network_acl(1, &stored.id).await.unwrap();
    assert!(database.replace_network_acl(1, &after, &second, NOW).await.unwrap().is_none());
    // A tenant that is gone has no rules, and gets none.
    database.delete_tenant(&name("a")).await.unwrap();
    assert!(database.create_network_acl(1, &acl_id().unwrap(), &second, NOW).await.unwrap().is_none());
    assert!(descriptions(&*database, 1).await.is_empty());
}

async fn two_changes_to_one_access_rule_at_the_same_time_both_count(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({}))).await.unwrap();
    let stored = create_acl(&*database, 1, &acl("start", None, block_asn(1))).await.unwrap();
    let change = |letter: &'static str| {
        let (database, id) = (Arc::clone(&database), stored.id.clone());
        async move {
            let add = move |stored: &StoredAcl| {
                let rule = serde_json::from_str(stored.rule.get()).unwrap();
                Ok::<_, Error>(acl(&format!("{}{letter}", stored.description), None, rule))
            };
            update_network_acl(&*database, 1, &id, NOW, add).await.unwrap().unwrap()
        }
    };
    tokio::join!(change("x"), change("y"), change("z"));
    let mut after = database.network_acl(1, &stored.id).await.unwrap().unwrap().description.into_bytes();
    after.sort_unstable();
    assert_eq!(after, *b"arsttxyz");
}

async fn an_access_rule_of_another_tenant_is_out_of_reach(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({}))).await.unwrap();
    database.create_tenant(&tenant("b", json!({}))).await.unwrap();
    let stored = create_acl(&*database, 1, &acl("a's", None, block_asn(1))).await.unwrap();
    assert!(database.network_acl(2, &stored.id).await.unwrap().is_none());
    let other = new(&acl("b's", None, block_asn(2)));
    assert!(database.replace_network_acl(2, &stored, &other, NOW).await.unwrap().is_none());
    database.delete_network_acl(2, &stored.id).await.unwrap();
    assert!(descriptions(&*database, 2).await.is_empty() && database.active_rules(2).await.unwrap().is_empty());
    assert_eq!(descriptions(&*database, 1).await, ["a's"]);
}

/// The tenant's name and the numbers of the systems that its rules name, as an edge reads them.
fn told(change: &dcr_edge::edge_api::TenantChange) -> (String, Vec<u32>) {
    let snapshot: Snapshot = serde_json::from_str(change.tenant.as_ref().unwrap().get()).unwrap();
    let signals = snapshot.network_acls.iter().flat_map(|acl| acl.rule.condition.signals());
    (snapshot.name.to_string(), signals.flat_map(|signals| signals.asns.clone()).collect())
}

async fn a_reader_is_told_the_active_access_rules_in_the_order_of_evaluation(database: Arc<dyn Database>) {
    for letter in ["a", "b", "c"] {
        database.create_tenant(&tenant(letter, json!({}))).await.unwrap();
    }
    let start = database.changes(0, None).await.unwrap();
    let since = async |after| database.changes(after, Some(&start.instance)).await.unwrap();
    for (asn, priority) in [(30, 5), (10, 1), (40, 5), (20, 1)] {
        create_acl(&*database, 1, &acl("d", Some(priority), block_asn(asn))).await.unwrap();
    }
    let inactive = NetworkAcl { active: false, ..acl("d", Some(0), block_asn(50)) };
    let inactive = create_acl(&*database, 1, &inactive).await.unwrap();
    let rule = create_acl(&*database, 2, &acl("d", None, block_asn(60))).await.unwrap();
    let changed = since(start.head).await;
    assert_eq!(changed.head, start.head + 5);
    assert_eq!(
        changed.tenants.iter().map(told).collect::<Vec<_>>(),
        [("a".to_owned(), vec![10, 20, 30, 40]), ("b".to_owned(), vec![60])]
    );
    let snapshot: Snapshot = serde_json::from_str(changed.tenants[1].tenant.as_ref().unwrap().get()).unwrap();
    assert_eq!(snapshot.network_acls[0].id, rule.id);
    let all = database.changes(0, None).await.unwrap();
    assert_eq!(all.tenants.iter().map(|change| told(change).1.len()).collect::<Vec<_>>(), [0, 4, 1]);

    let active = acl("d", None, block_asn(50));
    database.replace_network_acl(1, &inactive, &new(&active), NOW).await.unwrap().unwrap();
    let changed = since(changed.head).await;
    assert_eq!(told(&changed.tenants[0]).1, [50, 10, 20, 30, 40]);
    database.delete_network_acl(2, &rule.id).await.unwrap();
    let deleted = since(changed.head).await;
    assert_eq!(deleted.tenants.iter().map(told).collect::<Vec<_>>(), [("b".to_owned(), vec![])]);
    // What changes nothing is no change.
    database.delete_network_acl(2, &rule.id).await.unwrap();
    let same = |stored: &StoredAcl| {
        Ok::<_, Error>(acl(&stored.description, None, serde_json::from_str(stored.rule.get()).unwrap()))
    };
    update_network_acl(&*database, 1, &inactive.id, NOW + 1, same).await.unwrap().unwrap();
    assert_eq!(since(deleted.head).await.head, deleted.head);
}

async fn only_what_alters_the_list_of_active_rules_is_told(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({}))).await.unwrap();
    let inactive = NetworkAcl { active: false, ..acl("inactive", Some(1), block_asn(1)) };
    let first = create_acl(&*database, 1, &acl("first", Some(5), block_asn(2))).await.unwrap();
    create_acl(&*database, 1, &acl("second", Some(9), block_asn(3))).await.unwrap();
    let start = database.changes(0, None).await.unwrap();
    let head = async || database.changes(0, None).await.unwrap().head;

    let inactive = create_acl(&*database, 1, &inactive).await.unwrap();
    let replace = async |stored: &StoredAcl, acl: NetworkAcl| {
        let replaced = database.replace_network_acl(1, stored, &new(&acl), NOW).await.unwrap().unwrap();
        assert!(replaced.version > stored.version, "a change that began before is not written");
        replaced
    };
    let inactive = replace(&inactive, NetworkAcl { active: false, ..acl("x", Some(7), block_asn(4)) }).await;
    let first = replace(&first, acl("described", Some(5), block_asn(2))).await;
    let first = replace(&first, acl("described", Some(8), block_asn(2))).await;
    assert_eq!(head().await, start.head);

    let first = replace(&first, acl("described", Some(10), block_asn(2))).await;
    assert_eq!(head().await, start.head + 1, "another order");
    let first = replace(&first, acl("described", Some(10), block_asn(5))).await;
    assert_eq!(head().await, start.head + 2, "another rule");
    replace(&first, NetworkAcl { active: false, ..acl("described", None, block_asn(5)) }).await;
    assert_eq!(head().await, start.head + 3, "one less");
    assert!(!database.delete_network_acl(1, &inactive.id).await.unwrap());
    assert_eq!(head().await, start.head + 3);
}

async fn a_change_to_a_tenant_that_is_another_by_now_is_not_made(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({}))).await.unwrap();
    let known = database.tenant(&name("a")).await.unwrap().unwrap();
    let add = |mut tenant: Tenant| {
        tenant.domains.push("x.example".parse().unwrap());
        Ok::<_, Error>(tenant)
    };
    let changed = update_known_tenant(&*database, &known, at(NOW), add).await.unwrap().unwrap();
    assert_eq!(changed.after.domains.len(), known.tenant.domains.len() + 1);
    database.delete_tenant(&name("a")).await.unwrap();
    database.create_tenant(&tenant("a", json!({}))).await.unwrap();
    assert!(update_known_tenant(&*database, &known, at(NOW), add).await.unwrap().is_none());
    assert_eq!(database.tenant(&name("a")).await.unwrap().unwrap().tenant, known.tenant);
}

async fn user_agents_with_wildcards_have_an_end_in_active_rules(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({}))).await.unwrap();
    let agents = |count: usize, length: usize| {
        let agents: Vec<String> = (0..count).map(|number| format!("{number:0>0$}*", length - 1)).collect();
        json!({"action": {"block": true}, "match": {"user_agents": agents}, "scope": "tenant"})
    };
    let refused = create_acl(&*database, 1, &acl("d", None, agents(1_001, 5))).await.unwrap_err();
    assert!(refused.to_string().contains("1001 user_agents with a * in active rules"), "{refused}");
    create_acl(&*database, 1, &acl("most", None, agents(32, 512))).await.unwrap();
    let refused = create_acl(&*database, 1, &acl("d", None, agents(1, 2))).await.unwrap_err();
    assert!(refused.to_string().contains("16386 bytes of user_agents with a *"), "{refused}");

    let more = acl("more", None, agents(1, 2));
    let inactive = create_acl(&*database, 1, &NetworkAcl { active: false, ..more.clone() }).await.unwrap();
    let refused = database.replace_network_acl(1, &inactive, &new(&more), NOW).await;
    assert!(matches!(refused, Err(Error::TooManyAcls(_))));
}

async fn a_page_of_the_feed_has_the_large_rules_of_one_tenant_at_most(database: Arc<dyn Database>) {
    let cidrs: Vec<String> =
        (0..30_000_u32).map(|n| format!("2001:db8:{:x}:{:x}:1:2:3:4/128", n >> 16, n & 0xffff)).collect();
    let large =
        acl("large", None, json!({"action": {"block": true}, "match": {"ipv6_cidrs": cidrs}, "scope": "tenant"}));
    for letter in ["a", "b", "c", "d", "e"] {
        database.create_tenant(&tenant(letter, json!({}))).await.unwrap();
        if letter != "d" {
            create_acl(&*database, slot(&*database, letter).await, &large).await.unwrap();
        }
    }
    let (mut pages, mut after, mut instance) = (Vec::new(), 0, None);
    loop {
        let page = database.changes(after, instance.as_deref()).await.unwrap();
        pages.push(page.tenants.iter().map(|change| told(change).0).collect::<Vec<_>>().concat());
        (after, instance) = (page.head, Some(page.instance));
        if !page.more {
            break;
        }
    }
    assert_eq!(pages, ["a", "b", "c", "de"]);
}

async fn a_tenant_redirects_to_no_host_of_its_own(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({}))).await.unwrap();
    let redirect = |host: &str| {
        let action = json!({"redirect": true, "redirect_uri": format!("https://{host}:8443/blocked")});
        acl("elsewhere", None, json!({"action": action, "match_all": true, "scope": "tenant"}))
    };
    let refused = create_acl(&*database, 1, &redirect("WWW.a.example")).await.unwrap_err();
    assert!(matches!(&refused, Error::RedirectsToItself(host) if host == "www.a.example"), "{refused}");
    let stored = create_acl(&*database, 1, &redirect("x.example")).await.unwrap();
    let replaced = database.replace_network_acl(1, &stored, &new(&redirect("a.example")), NOW).await;
    assert!(matches!(replaced, Err(Error::RedirectsToItself(_))));

    let add = |mut tenant: Tenant| {
        tenant.domains.push("x.example".parse().unwrap());
        Ok::<_, Error>(tenant)
    };
    let before = database.tenant(&name("a")).await.unwrap();
    let refused = update_tenant(&*database, &name("a"), at(NOW), add).await.unwrap_err();
    assert!(matches!(&refused, Error::HostRedirectedTo { acl, .. } if *acl == stored.id), "{refused}");
    assert_eq!(database.tenant(&name("a")).await.unwrap(), before);
    database.replace_network_acl(1, &stored, &new(&acl("blocks", None, block_asn(1))), NOW).await.unwrap().unwrap();
    update_tenant(&*database, &name("a"), at(NOW), add).await.unwrap();
}

/// A client that the owner makes; it says of itself that it is `public()`.
fn made(number: usize, app_type: AppType) -> MadeClient {
    let mut metadata = public()["metadata"].clone();
    metadata["grant_types"] = json!(["authorization_code"]);
    metadata["response_types"] = json!(["code"]);
    metadata["application_type"] = json!("web");
    let data = ClientData { metadata: metadata.to_string(), app_type, owner: OwnerData::default() };
    MadeClient { client_id: client_id(number), client_secret_sha256: None, data }
}

async fn make(database: &dyn Database, tenant: u32, number: usize, app_type: AppType) -> StoredClient {
    database.create_client(tenant, &made(number, app_type), NOW * 1_000 + 7).await.unwrap().unwrap()
}

fn described(client: &StoredClient, description: &str) -> ClientData {
    let owner = OwnerData { description: Some(description.to_owned()), ..client.data.owner.clone() };
    ClientData { owner, ..client.data.clone() }
}

async fn every_page_of_clients_has_those_that_come_next_in_the_order_of_creation(database: Arc<dyn Database>) {
    for letter in ["a", "b"] {
        database.create_tenant(&tenant(letter, limited(1_000_000, 1_000_000))).await.unwrap();
    }
    // Natives first, then both kinds in turn, then none for long, and strangers' clients in between.
    let mut native = public();
    native["metadata"]["application_type"] = json!("native");
    let web = confidential();
    let mut expected: Vec<(String, AppType)> = Vec::new();
    for batch in 0..15 {
        let numbers = batch * 300..(batch + 1) * 300;
        let is_native = |number: usize| number < 1_500 || (number < 2_000 && number.is_multiple_of(2));
        let owner = |number: usize| if number.is_multiple_of(3) { "b" } else { "a" };
        let clients: Vec<_> = numbers
            .clone()
            .map(|number| new_client(owner(number), number, if is_native(number) { &native } else { &web }))
            .collect();
        let answers = register(&*database, &clients, NOW).await;
        assert!(answers.iter().all(Result::is_ok));
        let app_type = |number| if is_native(number) { AppType::Native } else { AppType::RegularWeb };
        expected.extend(numbers.filter(|n| !n.is_multiple_of(3)).map(|number| (client_id(number), app_type(number))));
    }
    for number in [9_001, 9_002] {
        make(&*database, 1, number, AppType::Spa).await;
        expected.push((client_id(number), AppType::Spa));
    }
    let check = async |expected: &[(String, AppType)], step: usize| {
        for app_types in [&AppType::ALL[..], &[AppType::Native], &[AppType::Spa, AppType::RegularWeb], &[]] {
            let expected: Vec<&str> =
                expected.iter().filter(|(_, own)| app_types.contains(own)).map(|(id, _)| id.as_str()).collect();
            for offset in (0..expected.len() + 2 * step).step_by(step) {
                let page = database.clients(1, app_types, offset as u64, 100).await.unwrap();
                let ids: Vec<&str> = page.clients.iter().map(|client| client.client_id.as_str()).collect();
                let next: Vec<&str> = expected.iter().skip(offset).take(100).copied().collect();
                assert_eq!((ids, page.total), (next, expected.len() as u64), "{app_types:?} {offset}");
            }
        }
        assert!(database.clients(1, &AppType::ALL, u64::MAX, u32::MAX).await.unwrap().clients.is_empty());
    };
    check(&expected, 97).await;

    // A change keeps the place, also one of the type; a deletion closes the gap.
    for (id, app_type) in expected.iter_mut().step_by(37) {
        let stored = database.client(1, id).await.unwrap().unwrap();
        assert_eq!(stored.data.app_type, *app_type);
        let data = ClientData { app_type: AppType::Spa, ..stored.data.clone() };
        database.replace_client(1, &stored, &data, NOW).await.unwrap().unwrap();
        *app_type = AppType::Spa;
    }
    let (gone, kept): (Vec<_>, Vec<_>) = expected
        .into_iter()
        .enumerate()
        .partition(|(place, _)| place.is_multiple_of(41) || (1_000..2_200).contains(place));
    for (_, (id, _)) in &gone {
        database.delete_client(1, id).await.unwrap();
        database.delete_client(1, id).await.unwrap();
    }
    let kept: Vec<_> = kept.into_iter().map(|(_, client)| client).collect();
    check(&kept, 89).await;
}

async fn a_stale_change_of_a_client_is_not_written(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({}))).await.unwrap();
    let stored = make(&*database, 1, 1, AppType::Spa).await;
    assert_eq!((stored.version, stored.is_dynamic, stored.has_secret), (1, false, false));
    assert_eq!((stored.issued_at, stored.updated_at), (NOW, NOW * 1_000));
    let data = described(&stored, "d");
    let after = database.replace_client(1, &stored, &data, NOW * 1_000 + 9).await.unwrap().unwrap();
    assert_eq!((&after.data, after.version, after.updated_at), (&data, 2, NOW * 1_000 + 9));
    assert_eq!(database.client(1, &after.client_id).await.unwrap().unwrap(), after);
    assert!(database.replace_client(1, &stored, &data, NOW).await.unwrap().is_none());
    database.delete_client(1, &stored.client_id).await.unwrap();
    assert!(database.replace_client(1, &after, &data, NOW).await.unwrap().is_none());
}

async fn two_changes_to_one_client_at_the_same_time_both_count(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({}))).await.unwrap();
    let id = make(&*database, 1, 1, AppType::Spa).await.client_id;
    let change = |letter: &'static str| {
        let (database, id) = (Arc::clone(&database), id.clone());
        async move {
            let add = |stored: &StoredClient| {
                let before = stored.data.owner.description.clone().unwrap_or_default();
                Ok::<_, Error>(described(stored, &format!("{before}{letter}")))
            };
            update_client(&*database, 1, &id, NOW, add).await.unwrap().unwrap()
        }
    };
    tokio::join!(change("x"), change("y"), change("z"));
    let after = database.client(1, &id).await.unwrap().unwrap();
    let mut letters = after.data.owner.description.unwrap().into_bytes();
    letters.sort_unstable();
    assert_eq!((letters.as_slice(), after.version), (&b"xyz"[..], 4));
}

async fn a_client_of_another_tenant_is_out_of_reach(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({}))).await.unwrap();
    database.create_tenant(&tenant("b", json!({}))).await.unwrap();
    register_one(&*database, new_client("a", 1, &confidential()), NOW).await.unwrap();
    let id = client_id(1);
    let stored = database.client(1, &id).await.unwrap().unwrap();
    assert!(stored.is_dynamic && stored.has_secret);
    assert!(database.client(2, &id).await.unwrap().is_none());
    assert_eq!(database.client_secret_sha256(1, &id).await.unwrap(), Some([0xab; 32]));
    assert_eq!(database.client_secret_sha256(2, &id).await.unwrap(), None);
    assert!(database.replace_client(2, &stored, &described(&stored, "b's"), NOW).await.unwrap().is_none());
    assert!(database.replace_client_secret(2, &id, [0; 32], NOW).await.unwrap().is_none());
    database.delete_client(2, &id).await.unwrap();
    assert_eq!(database.clients(2, &AppType::ALL, 0, 100).await.unwrap().total, 0);
    assert_eq!(database.client(1, &id).await.unwrap().unwrap(), stored);
    // The secret is what it was.
    assert_eq!(register_one(&*database, new_client("a", 1, &confidential()), NOW).await, registered(1, NOW, false));
    assert_eq!(database.replace_client_secret(1, &id, [0; 32], NOW).await.unwrap().unwrap().version, 2);
    let again = register_one(&*database, new_client("a", 1, &confidential()), NOW).await;
    assert_eq!(again, Err(Refusal::Conflict));
}

async fn a_clients_permissions_are_by_its_own_grants_and_its_tenants_defaults(database: Arc<dyn Database>) {
    let add = async |slot: u32, kind: DocumentKind, data: Value| {
        let id = kind.new_id().unwrap();
        database.create_document(slot, kind, &id, &data.to_string(), NOW).await.unwrap().unwrap();
    };
    for (slot, tenant_name) in [(1, "a"), (2, "b")] {
        database.create_tenant(&tenant(tenant_name, json!({}))).await.unwrap();
        for number in [1, 2] {
            let number = number + 10 * usize::try_from(slot).unwrap();
            register_one(&*database, new_client(tenant_name, number, &public()), NOW).await.unwrap();
        }
        for api in ["x", "y"] {
            let scopes = json!([{"value": tenant_name}, {"value": "own"}]);
            add(slot, DocumentKind::ResourceServer, json!({"identifier": api, "scopes": scopes})).await;
            let default = json!({"default_for": "third_party_clients", "audience": api, "scope": [tenant_name],
                                 "subject_type": "user"});
            add(slot, DocumentKind::ClientGrant, default).await;
        }
        let own = json!({"client_id": client_id(1 + 10 * usize::try_from(slot).unwrap()), "audience": "x",
                         "scope": ["own"], "subject_type": "user"});
        add(slot, DocumentKind::ClientGrant, own).await;
        for (kind, is_domain_connection) in [("users", true), ("staff", false), ("guests", true)] {
            let connection = json!({"name": format!("{kind}-{tenant_name}"), "strategy": "auth0",
                                    "is_domain_connection": is_domain_connection});
            add(slot, DocumentKind::Connection, connection).await;
        }
    }
    let permissions = async |slot, number| {
        let permitted = permitted_client(&*database, slot, &client_id(number)).await.unwrap()?;
        let permission = |one: &Permission| format!("{}: {}", one.audience, one.scope.join(" "));
        Some((permitted.has_own_grants, permitted.permissions.iter().map(permission).collect::<Vec<_>>()))
    };
    let are =
        |has_own_grants: bool, permissions: [&str; 2]| Some((has_own_grants, permissions.map(str::to_owned).to_vec()));
    assert_eq!(permissions(1, 11).await, are(true, ["y: a", "x: own"]));
    assert_eq!(permissions(1, 12).await, are(false, ["x: a", "y: a"]));
    assert_eq!(permissions(2, 21).await, are(true, ["y: b", "x: own"]));
    // Neither another tenant's client nor one that is gone has the defaults.
    assert_eq!(permissions(2, 11).await, None);
    database.delete_client(1, &client_id(12)).await.unwrap();
    assert_eq!(permissions(1, 12).await, None);
    let defaults = default_permissions(&*database, 2).await.unwrap();
    assert_eq!(
        defaults.iter().map(|one| (&*one.audience, one.scope.join(" "))).collect::<Vec<_>>(),
        [("x", "b".to_owned()), ("y", "b".to_owned())]
    );
    assert_eq!(database.domain_connections(2).await.unwrap(), ["users-b", "guests-b"]);
}

async fn what_a_clients_permissions_say_of_an_api_is_what_the_api_says(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({}))).await.unwrap();
    let mut registration = public();
    registration["metadata"]["grant_types"] = json!(["authorization_code", "refresh_token"]);
    register_one(&*database, new_client("a", 1, &registration), NOW).await.unwrap();
    let policies = |user: &str| json!({"user": {"policy": user}, "client": {"policy": "require_client_grant"}});
    for (identifier, user, offline) in [("x", "allow_all", true), ("y", "deny_all", true), ("z", "allow_all", false)] {
        let api = json!({"identifier": identifier, "name": "n", "scopes": [{"value": "r", "description": "d"}],
            "allow_offline_access": offline, "subject_type_authorization": policies(user)});
        let kind = DocumentKind::ResourceServer;
        database.create_document(1, kind, &format!("rs_{identifier}"), &api.to_string(), NOW).await.unwrap().unwrap();
        let grant = json!({"default_for": "third_party_clients", "audience": identifier, "scope": [],
            "subject_type": "user", "allow_all_scopes": true});
        let kind = DocumentKind::ClientGrant;
        database
            .create_document(1, kind, &format!("cgr_{identifier}"), &grant.to_string(), NOW)
            .await
            .unwrap()
            .unwrap();
    }
    let permitted = permitted_client(&*database, 1, &client_id(1)).await.unwrap().unwrap();
    let seen: Vec<_> = permitted
        .permissions
        .iter()
        .map(|one| (one.audience.as_str(), one.scope.join(" "), one.allow_offline_access))
        .collect();
    assert_eq!(seen, [("x", "r".to_owned(), true), ("z", "r".to_owned(), false)]);
}

async fn grants_for_one_client_and_by_default_have_an_end(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({}))).await.unwrap();
    for number in [1, 2] {
        register_one(&*database, new_client("a", number, &public()), NOW).await.unwrap();
    }
    let add = async |kind: DocumentKind, data: Value| {
        database.create_document(1, kind, &kind.new_id().unwrap(), &data.to_string(), NOW).await.map(drop)
    };
    let grant = |whose: (&str, &str), api: usize| json!({whose.0: whose.1, "audience": api.to_string(), "scope": [], "subject_type": "user"});
    let of_client = |number: usize, api: usize| grant(("client_id", &client_id(number)), api);
    let default = |api: usize| grant(("default_for", "third_party_clients"), api);
    for api in 0..=100 {
        add(DocumentKind::ResourceServer, json!({"identifier": api.to_string()})).await.unwrap();
    }
    for api in 0..100 {
        add(DocumentKind::ClientGrant, of_client(1, api)).await.unwrap();
        add(DocumentKind::ClientGrant, default(api)).await.unwrap();
    }
    let refused = async |data: Value| add(DocumentKind::ClientGrant, data).await.unwrap_err().to_string();
    assert_eq!(refused(of_client(1, 100)).await, "client grants of one client are 100 at most; delete one first");
    assert_eq!(refused(default(100)).await, "default client grants of a tenant are 100 at most; delete one first");
    add(DocumentKind::ClientGrant, of_client(2, 100)).await.unwrap();
    let (_, grants) = database.client_with_grants(1, &client_id(1)).await.unwrap().unwrap();
    assert_eq!(grants.len(), 200);
}

async fn only_the_uses_of_the_clients_that_are_named_are_noted_and_they_are_no_change(database: Arc<dyn Database>) {
    for (slot, letter) in [(1, "a"), (2, "b")] {
        database.create_tenant(&tenant(letter, json!({}))).await.unwrap();
        for number in [1, 2] {
            register_one(&*database, new_client(letter, slot * 10 + number, &public()), NOW).await.unwrap();
        }
    }
    let ids = [11, 12, 21, 22].map(client_id);
    let read = async || {
        let mut clients = Vec::new();
        for (slot, id) in [1, 1, 2, 2].into_iter().zip(&ids) {
            clients.push(database.client(slot, id).await.unwrap().unwrap());
        }
        clients
    };
    let before = read().await;
    let [first, second, third, fourth] = ids.clone();
    // Twice the same, another tenant's slot, an id and a slot that nobody has.
    let uses =
        [(1, first.clone()), (1, first), (2, second), (2, third), (1, fourth), (1, client_id(1)), (9, client_id(1))];
    database.note_client_uses(&uses, (NOW + 7) * 1_000).await.unwrap();
    let noted = |client: &StoredClient, last_used_at| StoredClient { last_used_at, ..client.clone() };
    let at = [Some(NOW + 7), None, Some(NOW + 7), None];
    let expected: Vec<_> = before.iter().zip(at).map(|(client, at)| noted(client, at)).collect();
    assert_eq!(read().await, expected);
    database.note_client_uses(&[], NOW * 1_000).await.unwrap();
    assert_eq!(read().await, expected);
    assert!(database.delete_tenant(&name("a")).await.unwrap().is_some());
    database.note_client_uses(&uses, (NOW + 8) * 1_000).await.unwrap();
    assert_eq!(database.client(2, &ids[2]).await.unwrap().unwrap().last_used_at, Some(NOW + 8));
}

async fn no_registration_is_folded_into_a_client_that_the_owner_made_or_changed(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({"deduplicate_public_clients": true}))).await.unwrap();
    make(&*database, 1, 1, AppType::RegularWeb).await;
    let client = |number| new_client("a", number, &public());
    assert_eq!(register_one(&*database, client(2), NOW).await, registered(2, NOW, true));
    let stored = database.client(1, &client_id(2)).await.unwrap().unwrap();
    let stored = database.replace_client(1, &stored, &described(&stored, "d"), NOW).await.unwrap().unwrap();
    assert_eq!(register_one(&*database, client(3), NOW).await, registered(2, NOW, false));
    let renamed = ClientData { metadata: stored.data.metadata.replace("Test", "Other"), ..stored.data.clone() };
    database.replace_client(1, &stored, &renamed, NOW).await.unwrap().unwrap();
    assert_eq!(register_one(&*database, client(4), NOW).await, registered(4, NOW, true));
    let mut other = public();
    other["metadata"]["client_name"] = json!("Other");
    assert_eq!(register_one(&*database, new_client("a", 5, &other), NOW).await, registered(5, NOW, true));
}

async fn a_deleted_tenant_has_no_clients_and_gets_none(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({}))).await.unwrap();
    make(&*database, 1, 1, AppType::Spa).await;
    assert_eq!(database.delete_tenant(&name("a")).await.unwrap(), Some(1));
    assert!(database.create_client(1, &made(2, AppType::Spa), NOW).await.unwrap().is_none());
    let page = database.clients(1, &AppType::ALL, 0, 100).await.unwrap();
    assert!(page.clients.is_empty() && page.total == 0);
    assert!(database.client(1, &client_id(1)).await.unwrap().is_none());
}

async fn exists(database: &dyn Database, numbers: impl IntoIterator<Item = usize>) -> Vec<bool> {
    let mut exist = Vec::new();
    for number in numbers {
        exist.push(database.client(1, &client_id(number)).await.unwrap().is_some());
    }
    exist
}

/// The events of the tenant's log that say that unused clients were deleted, the oldest first.
async fn deletions(database: &dyn Database, tenant: u32) -> Vec<Value> {
    let query = LogQuery { filter: None, order: LogOrder::OldestFirst(0), limit: 1_000 };
    let events = database.log_events(tenant, &query).await.unwrap();
    let data = events.iter().map(|event| serde_json::from_str::<Value>(&event.data).unwrap());
    data.filter(|data| data["description"] == "Unused clients deleted").map(|mut data| data["details"].take()).collect()
}

async fn grant(database: &dyn Database, tenant: u32, id: &str, whose: (&str, &str), scope: Value) {
    let grant = json!({"audience": "urn:api", "scope": scope, "subject_type": "user", "allow_all_scopes": false,
        whose.0: whose.1});
    let kind = DocumentKind::ClientGrant;
    database.create_document(tenant, kind, id, &grant.to_string(), NOW).await.unwrap().unwrap();
}

async fn make_api(database: &dyn Database, tenant: u32) {
    let api = json!({"identifier": "urn:api", "scopes": [{"value": "read"}]}).to_string();
    let kind = DocumentKind::ResourceServer;
    database.create_document(tenant, kind, &format!("rs_{tenant}"), &api, NOW).await.unwrap().unwrap();
}

async fn a_full_quota_lets_the_oldest_unused_clients_give_way_and_no_more_than_needed(database: Arc<dyn Database>) {
    database
        .create_tenant(&tenant("a", json!({"client_quota": 4, "rate_limit": {"burst": 99, "per_second": 9}})))
        .await
        .unwrap();
    make_api(&*database, 1).await;
    // The order of the dates is another than that of the numbers.
    for (number, age) in [(1, 1), (2, 3), (3, 2), (4, 0)] {
        let client = new_client("a", number, &confidential());
        assert!(register_one(&*database, client, NOW - age * DAY).await.is_ok());
    }
    grant(&*database, 1, "cgr_2", ("client_id", &client_id(2)), json!(["read"])).await;
    grant(&*database, 1, "cgr_4", ("client_id", &client_id(4)), json!(["read"])).await;
    let answer = register_one(&*database, new_client("a", 5, &confidential()), NOW).await;
    assert_eq!(answer, registered(5, NOW, true));
    assert_eq!(exists(&*database, 1..6).await, [true, false, true, true, true]);
    let query = DocumentQuery { limit: 9, ..DocumentQuery::default() };
    let grants = database.documents(1, DocumentKind::ClientGrant, &query).await.unwrap().documents;
    assert_eq!(grants.iter().map(|grant| grant.id.as_str()).collect::<Vec<_>>(), ["cgr_4"]);

    // The client 1 is as old as a day, and no older.
    let batch = [6, 7].map(|number| new_client("a", number, &confidential()));
    assert_eq!(register(&*database, &batch, NOW).await, [registered(6, NOW, true), Err(Refusal::QuotaUsedUp)]);
    assert_eq!(exists(&*database, 1..8).await, [true, false, false, true, true, true, false]);
    assert_eq!(database.clients(1, &AppType::ALL, 0, 100).await.unwrap().total, 4);
    let gone = |number| json!({"reason": "client_quota", "clients": 1, "client_ids": [client_id(number)]});
    assert_eq!(deletions(&*database, 1).await, [gone(2), gone(3)]);
}

async fn only_old_clients_that_registered_themselves_and_that_nobody_used_give_way(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({"client_quota": 3}))).await.unwrap();
    make(&*database, 1, 1, AppType::Spa).await;
    for (number, at) in [(2, NOW), (3, NOW + DAY)] {
        register_one(&*database, new_client("a", number, &confidential()), at).await.unwrap();
    }
    database.note_client_uses(&[(1, client_id(2))], NOW * 1_000).await.unwrap();
    let later = NOW + 2 * DAY;
    let answer = register_one(&*database, new_client("a", 4, &confidential()), later).await;
    assert_eq!(answer, Err(Refusal::QuotaUsedUp));
    let answer = register_one(&*database, new_client("a", 5, &confidential()), later + 1).await;
    assert_eq!(answer, registered(5, later + 1, true));
    assert_eq!(exists(&*database, 1..6).await, [true, true, false, false, true]);
}

async fn a_registration_that_the_limit_refuses_makes_nobody_give_way(database: Arc<dyn Database>) {
    let settings = json!({"client_quota": 2, "rate_limit": {"burst": 2, "per_second": 1}});
    database.create_tenant(&tenant("a", settings)).await.unwrap();
    let batch = [1, 2].map(|number| new_client("a", number, &confidential()));
    register(&*database, &batch, NOW).await;
    set(&*database, "a", json!({"client_quota": 2, "rate_limit": {"burst": 1, "per_second": 1}})).await;
    let batch = [3, 4].map(|number| new_client("a", number, &confidential()));
    let answers = register(&*database, &batch, NOW + 2 * DAY).await;
    let created = answers.iter().filter(|answer| answer.is_ok()).count();
    assert!(answers.iter().all(|answer| matches!(answer, Ok(_) | Err(Refusal::RateLimited { .. }))), "{answers:?}");
    assert!(answers.contains(&registered(3, NOW + 2 * DAY, true)));
    assert_eq!(deletions(&*database, 1).await[0]["clients"], created);
    assert_eq!(database.clients(1, &AppType::ALL, 0, 100).await.unwrap().total, 2);
    let refused = register(&*database, &[new_client("a", 5, &confidential())], NOW + 2 * DAY).await;
    assert!(matches!(refused[0], Err(Refusal::RateLimited { .. } | Refusal::QuotaUsedUp)), "{refused:?}");
    assert_eq!(deletions(&*database, 1).await.len(), 1);
}

async fn a_client_that_a_batch_answers_with_does_not_give_way_in_it(database: Arc<dyn Database>) {
    let settings = json!({"client_quota": 3, "deduplicate_public_clients": true});
    database.create_tenant(&tenant("a", settings)).await.unwrap();
    let first =
        [new_client("a", 1, &public()), new_client("a", 2, &confidential()), new_client("a", 3, &confidential())];
    register(&*database, &first, NOW).await;
    let later = NOW + 2 * DAY;
    let batch = [
        new_client("a", 4, &confidential()),
        new_client("a", 5, &public()),
        new_client("a", 2, &confidential()),
        new_client("a", 6, &confidential()),
    ];
    let answers = register(&*database, &batch, later).await;
    let expected =
        [registered(4, later, true), registered(1, NOW, false), registered(2, NOW, false), Err(Refusal::QuotaUsedUp)];
    assert_eq!(answers, expected);
    assert_eq!(exists(&*database, 1..7).await, [true, true, false, true, false, false]);
}

async fn a_quota_that_was_lowered_is_kept_by_whoever_is_let_in(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({}))).await.unwrap();
    let batch = [1, 2, 3, 4].map(|number| new_client("a", number, &confidential()));
    register(&*database, &batch, NOW).await;
    set(&*database, "a", json!({"client_quota": 2})).await;
    database.note_client_uses(&[(1, client_id(1))], NOW * 1_000).await.unwrap();
    database.note_client_uses(&[(1, client_id(2))], NOW * 1_000).await.unwrap();
    let later = NOW + 2 * DAY;
    let refused = register_one(&*database, new_client("a", 5, &confidential()), later).await;
    assert_eq!(refused, Err(Refusal::QuotaUsedUp));
    assert_eq!(exists(&*database, 1..6).await, [true, true, true, true, false]);
    database.delete_client(1, &client_id(1)).await.unwrap();
    assert!(register_one(&*database, new_client("a", 6, &confidential()), later).await.is_ok());
    assert_eq!(exists(&*database, 1..7).await, [false, true, false, false, false, true]);
}

async fn each_tenant_loses_its_own_clients_only_and_its_log_says_which(database: Arc<dyn Database>) {
    let settings = |quota| json!({"client_quota": quota, "rate_limit": {"burst": 99, "per_second": 99}});
    database.create_tenant(&tenant("a", settings(30))).await.unwrap();
    database.create_tenant(&tenant("b", settings(30))).await.unwrap();
    let client = |number: usize| new_client(if number < 40 { "a" } else { "b" }, number, &confidential());
    let old: Vec<_> = (10..70).map(client).collect();
    assert!(register(&*database, &old, NOW).await.iter().all(Result::is_ok));
    let new: Vec<_> = (0..25).map(|number| new_client("a", 100 + number, &confidential())).collect();
    assert!(register(&*database, &new, NOW + 2 * DAY).await.iter().all(Result::is_ok));
    let [event] = deletions(&*database, 1).await.try_into().unwrap();
    let ids: Vec<_> = (10..30).map(client_id).collect();
    assert_eq!(event, json!({"reason": "client_quota", "clients": 25, "client_ids": ids}));
    assert!(deletions(&*database, 2).await.is_empty());
    assert_eq!(database.clients(1, &AppType::ALL, 0, 1).await.unwrap().total, 30);
    assert_eq!(database.clients(2, &AppType::ALL, 0, 1).await.unwrap().total, 30);
}

async fn a_client_that_was_answered_again_is_as_young_as_its_last_answer(database: Arc<dyn Database>) {
    let settings = json!({"client_quota": 3, "unused_client_ttl": 2 * DAY, "deduplicate_public_clients": true,
        "rate_limit": {"burst": 99, "per_second": 99}});
    database.create_tenant(&tenant("a", settings)).await.unwrap();
    let first =
        [new_client("a", 1, &public()), new_client("a", 2, &confidential()), new_client("a", 3, &confidential())];
    register(&*database, &first, NOW).await;
    // One is folded into the first, one repeats the second.
    let again = [new_client("a", 4, &public()), new_client("a", 2, &confidential())];
    let answers = register(&*database, &again, NOW + DAY + 10).await;
    assert_eq!(answers, [registered(1, NOW, false), registered(2, NOW, false)]);
    let stored = database.client(1, &client_id(1)).await.unwrap().unwrap();
    assert_eq!((stored.issued_at, stored.updated_at, stored.version), (NOW, NOW * 1_000, 1));

    let batch = [5, 6].map(|number| new_client("a", number, &confidential()));
    let later = NOW + DAY + 20;
    assert_eq!(register(&*database, &batch, later).await, [registered(5, later, true), Err(Refusal::QuotaUsedUp)]);
    assert_eq!(exists(&*database, [1, 2, 3, 5]).await, [true, true, false, true]);
    let run = async |seconds| client_upkeep::delete_unused(&*database, (NOW + seconds) * 1_000).await.unwrap();
    assert_eq!(run(3 * DAY + 10).await, 0);
    assert_eq!(run(3 * DAY + 11).await, 2);
    assert_eq!(exists(&*database, [1, 2, 5]).await, [false, false, true]);
}

async fn a_client_that_its_owner_changed_never_gives_way(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({"client_quota": 3, "unused_client_ttl": 3_600}))).await.unwrap();
    let batch = [1, 2, 3].map(|number| new_client("a", number, &confidential()));
    register(&*database, &batch, NOW).await;
    let stored = database.client(1, &client_id(1)).await.unwrap().unwrap();
    database.replace_client(1, &stored, &described(&stored, "ours"), NOW).await.unwrap().unwrap();
    database.replace_client_secret(1, &client_id(2), [7; 32], NOW).await.unwrap().unwrap();
    let later = NOW + 9 * DAY;
    let batch = [4, 5].map(|number| new_client("a", number, &confidential()));
    assert_eq!(register(&*database, &batch, later).await, [registered(4, later, true), Err(Refusal::QuotaUsedUp)]);
    assert_eq!(client_upkeep::delete_unused(&*database, (later + DAY) * 1_000).await.unwrap(), 1);
    assert_eq!(exists(&*database, 1..5).await, [true, true, false, false]);
}

/// `count` old clients of the tenant "a", and as many of "b", under these quotas from then on.
async fn with_old_clients(database: &dyn Database, count: usize, quotas: [usize; 2]) {
    let limit = json!({"burst": 999, "per_second": 999});
    for (slot, (letter, quota)) in ["a", "b"].into_iter().zip(quotas).enumerate() {
        database.create_tenant(&tenant(letter, json!({"rate_limit": limit}))).await.unwrap();
        let old: Vec<_> = (0..count).map(|number| new_client(letter, slot * 1_000 + number, &confidential())).collect();
        assert!(register(database, &old, NOW).await.iter().all(Result::is_ok));
        set(database, letter, json!({"client_quota": quota, "rate_limit": limit})).await;
    }
}

async fn total(database: &dyn Database, tenant: u32) -> u64 {
    database.clients(tenant, &AppType::ALL, 0, 1).await.unwrap().total
}

async fn a_batch_has_only_so_many_clients_give_way_and_the_next_one_has_room(database: Arc<dyn Database>) {
    with_old_clients(&*database, 80, [80, 80]).await;
    let new = |letter, first| (0..60_usize).map(move |number| new_client(letter, first + number, &confidential()));
    let batch: Vec<_> = new("a", 2_000).chain(new("b", 3_000)).collect();
    let answers = register(&*database, &batch, NOW + 2 * DAY).await;
    let refused = Err(Refusal::RateLimited { next_token_in: 0 });
    assert!(answers[..100].iter().all(Result::is_ok));
    assert!(answers[100..].iter().all(|answer| *answer == refused), "{:?}", &answers[100..]);
    // The first tenant's unused clients end with its places, and the second one's do not.
    let answers = register(&*database, &batch[100..], NOW + 2 * DAY).await;
    assert!(answers.iter().all(Result::is_ok));
    let more: Vec<_> = (0..21).map(|number| new_client("a", 4_000 + number, &confidential())).collect();
    let answers = register(&*database, &more, NOW + 2 * DAY).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 20);
    assert_eq!(answers[20], Err(Refusal::QuotaUsedUp));
    assert_eq!((total(&*database, 1).await, total(&*database, 2).await), (80, 80));
}

async fn a_tenant_far_above_its_quota_is_let_in_once_the_upkeep_brought_it_down(database: Arc<dyn Database>) {
    with_old_clients(&*database, 240, [20, 230]).await;
    database.note_client_uses(&[(1, client_id(0))], NOW * 1_000).await.unwrap();
    let later = NOW + 2 * DAY;
    let answer = register_one(&*database, new_client("a", 2_000, &confidential()), later).await;
    assert_eq!(answer, Err(Refusal::QuotaUsedUp));
    assert_eq!(total(&*database, 1).await, 240);
    // None is old enough at first.
    assert_eq!(client_upkeep::delete_unused(&*database, (NOW + DAY) * 1_000).await.unwrap(), 0);
    assert_eq!(client_upkeep::delete_unused(&*database, later * 1_000).await.unwrap(), 220 + 10);
    assert_eq!((total(&*database, 1).await, total(&*database, 2).await), (20, 230));
    assert_eq!(exists(&*database, [0, 1, 220, 221]).await, [true, false, false, true]);
    let ids: Vec<_> = (1..21).map(client_id).collect();
    let expected = json!({"reason": "client_quota", "clients": 220, "client_ids": ids});
    assert_eq!(deletions(&*database, 1).await, [expected]);
    let answer = register_one(&*database, new_client("a", 2_001, &confidential()), later).await;
    assert_eq!(answer, registered(2_001, later, true));
}

async fn clients_of_a_tenant_that_answers_for_no_host_yet_stay(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({"unused_client_ttl": 3_600}))).await.unwrap();
    register_one(&*database, new_client("a", 1, &public()), NOW).await.unwrap();
    let whole = database.tenant(&name("a")).await.unwrap().unwrap();
    let part = Tenant { domains: Vec::new(), ..whole.tenant.clone() };
    let part = StoredTenant { tenant: part, ..whole.clone() };
    assert!(database.replace_tenant(&part, at(NOW)).await.unwrap());
    let later = (NOW + DAY) * 1_000;
    assert_eq!(client_upkeep::delete_unused(&*database, later).await.unwrap(), 0);
    let part = database.tenant(&name("a")).await.unwrap().unwrap();
    assert!(database.replace_tenant(&StoredTenant { tenant: whole.tenant, ..part }, at(NOW)).await.unwrap());
    assert_eq!(client_upkeep::delete_unused(&*database, later).await.unwrap(), 1);
}

async fn the_upkeep_of_clients_begins_one_interval_after_the_start(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({"unused_client_ttl": 3_600}))).await.unwrap();
    register_one(&*database, new_client("a", 1, &public()), NOW).await.unwrap();
    let (stop, stopping) = tokio::sync::watch::channel(false);
    let regularly = |interval| {
        let database = Arc::clone(&database);
        tokio::spawn(client_upkeep::delete_unused_regularly(database, interval, stopping.clone()))
    };
    let slowly = regularly(Duration::from_secs(600));
    sleep(Duration::from_millis(100)).await;
    assert_eq!(total(&*database, 1).await, 1);
    let often = regularly(Duration::from_millis(1));
    timeout(PATIENCE, async {
        while total(&*database, 1).await > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    stop.send(true).unwrap();
    timeout(PATIENCE, async { tokio::try_join!(slowly, often) }).await.unwrap().unwrap();
}

async fn unused_clients_live_as_long_as_their_tenant_wants(database: Arc<dyn Database>) {
    let settings = |ttl| json!({"unused_client_ttl": ttl, "rate_limit": {"burst": 999, "per_second": 99}});
    database.create_tenant(&tenant("a", settings(3_600))).await.unwrap();
    database.create_tenant(&tenant("b", settings(7_200))).await.unwrap();
    database.create_tenant(&tenant("c", json!({}))).await.unwrap();
    let old: Vec<_> = (0..600).map(|number| new_client("a", number, &confidential())).collect();
    register(&*database, &old, NOW).await;
    register(&*database, &[new_client("b", 700, &public()), new_client("c", 701, &public())], NOW).await;
    register_one(&*database, new_client("a", 702, &public()), NOW + 1).await.unwrap();
    make(&*database, 1, 703, AppType::Spa).await;
    assert!(!database.has_used_client(1).await.unwrap());
    database.note_client_uses(&[(1, client_id(3))], NOW * 1_000).await.unwrap();
    assert!(database.has_used_client(1).await.unwrap() && !database.has_used_client(2).await.unwrap());

    let run = async |seconds| client_upkeep::delete_unused(&*database, (NOW + seconds) * 1_000).await.unwrap();
    assert_eq!(run(3_600).await, 0);
    assert_eq!(run(3_601).await, 599);
    assert_eq!(exists(&*database, [2, 3, 4, 702, 703]).await, [false, true, false, true, true]);
    assert_eq!(database.clients(1, &AppType::ALL, 0, 1).await.unwrap().total, 3);
    let ids: Vec<_> = (0..21).filter(|number| *number != 3).map(client_id).collect();
    let events = deletions(&*database, 1).await;
    assert_eq!(events, [json!({"reason": "unused_client_ttl", "clients": 599, "client_ids": ids})]);
    assert!(deletions(&*database, 2).await.is_empty());
    assert_eq!(run(366 * DAY).await, 2);
    assert_eq!(database.clients(2, &AppType::ALL, 0, 1).await.unwrap().total, 0);
    assert_eq!(database.clients(3, &AppType::ALL, 0, 1).await.unwrap().total, 1);
}

async fn a_registration_without_a_default_grant_is_logged_with_a_warning(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({}))).await.unwrap();
    database.create_tenant(&tenant("b", json!({}))).await.unwrap();
    for slot in [1, 2] {
        make_api(&*database, slot).await;
    }
    grant(&*database, 2, "cgr_b", ("default_for", "third_party_clients"), json!(["read"])).await;
    register(&*database, &[new_client("a", 1, &public()), new_client("b", 2, &public())], NOW).await;
    // The grant of one client is none of the others', and one without scopes grants nothing.
    grant(&*database, 1, "cgr_1", ("client_id", &client_id(1)), json!(["read"])).await;
    grant(&*database, 1, "cgr_none", ("default_for", "third_party_clients"), json!([])).await;
    register_one(&*database, new_client("a", 3, &public()), NOW).await.unwrap();
    // Neither does one for an API that denies all.
    let api = DocumentKind::ResourceServer;
    let stored = database.document(2, api, "urn:api").await.unwrap().unwrap();
    let denies = json!({"identifier": "urn:api", "scopes": [{"value": "read"}],
        "subject_type_authorization": {"user": {"policy": "deny_all"}}});
    database.replace_document(2, api, &stored, &denies.to_string(), NOW).await.unwrap().unwrap();
    register_one(&*database, new_client("b", 4, &public()), NOW).await.unwrap();
    let warnings = async |slot| {
        let query = LogQuery { filter: None, order: LogOrder::OldestFirst(0), limit: 9 };
        let events = database.log_events(slot, &query).await.unwrap();
        let details = events.iter().map(|event| serde_json::from_str::<Value>(&event.data).unwrap()["details"].take());
        details.map(|details| details.get("warning").cloned()).collect::<Vec<_>>()
    };
    let warning = Some(json!("no default client grant: the client can reach no API"));
    assert_eq!(warnings(1).await, [warning.clone(), warning.clone()]);
    assert_eq!(warnings(2).await, [None, warning]);
}

type Counts = Vec<(i64, i64, String, i64)>;

/// What the blocks say, and what the rows of the tenants that live say.
async fn counts(pool: &sqlx::SqlitePool) -> [Counts; 2] {
    let blocks = "SELECT tenant, block, app_type, clients FROM client_blocks ORDER BY 1, 2, 3";
    let rows = "SELECT tenant, number >> 11, app_type, count(*) FROM clients JOIN tenants ON slot = tenant \
                WHERE deleted = 0 GROUP BY 1, 2, 3 ORDER BY 1, 2, 3";
    [sqlx::query_as(blocks).fetch_all(pool).await.unwrap(), sqlx::query_as(rows).fetch_all(pool).await.unwrap()]
}

#[tokio::test]
async fn the_counts_of_clients_are_those_of_the_rows_whatever_happens() {
    let folder = Folder::empty();
    let database = dcr_edge::store::open(&folder.url(), IfMissing::Create).await.unwrap();
    let pool = sqlx::SqlitePool::connect(&folder.url()).await.unwrap();
    let settings = json!({"client_quota": 1_500, "unused_client_ttl": 360_000, "rate_limit": {"burst": 9_999, "per_second": 9_999}});
    for letter in ["a", "b", "c"] {
        database.create_tenant(&tenant(letter, settings.clone())).await.unwrap();
    }
    let mut state = 1_u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let (mut last, mut time) = (0_usize, NOW);
    for round in 0..250 {
        time += 6 * 3_600;
        let slot = u32::try_from(1 + random(2)).unwrap();
        let some = client_id(1 + random(last.max(1)));
        let stored = database.client(slot, &some).await.unwrap();
        match (random(8), stored) {
            (0 | 1, _) => {
                let client = |number: usize| {
                    let kind = if number.is_multiple_of(3) { public() } else { confidential() };
                    new_client(["a", "b", "c"][number % 3], number, &kind)
                };
                let batch: Vec<_> = (last + 1..=last + 1 + random(200)).map(client).collect();
                last += batch.len();
                register(&*database, &batch, time).await;
            }
            (2, _) => {
                last += 1;
                make(&*database, slot, last, AppType::ALL[random(4)]).await;
            }
            (3, Some(stored)) => {
                let data = ClientData { app_type: AppType::ALL[random(4)], ..stored.data.clone() };
                database.replace_client(slot, &stored, &data, time).await.unwrap().unwrap();
            }
            (4, Some(stored)) => {
                database.note_client_uses(&[(slot, stored.client_id)], time * 1_000).await.unwrap();
            }
            (5, _) if round % 5 == 0 => {
                client_upkeep::delete_unused(&*database, time * 1_000).await.unwrap();
            }
            (_, Some(_)) => database.delete_client(slot, &some).await.unwrap(),
            (_, None) => {}
        }
        if round == 200 {
            database.delete_tenant(&name("c")).await.unwrap();
        }
        let [blocks, rows] = counts(&pool).await;
        assert_eq!(blocks, rows, "after round {round}");
    }
    let numbers: i64 = sqlx::query_scalar("SELECT max(number) FROM clients").fetch_one(&pool).await.unwrap();
    assert!(numbers > 2 * 2_048, "{numbers} are in too few blocks");
    pool.close().await;
    database.close().await;
}

#[tokio::test]
async fn a_tenant_that_cannot_be_read_keeps_the_upkeep_from_no_other() {
    let folder = Folder::empty();
    let database = dcr_edge::store::open(&folder.url(), IfMissing::Create).await.unwrap();
    let pool = sqlx::SqlitePool::connect(&folder.url()).await.unwrap();
    let settings = json!({"unused_client_ttl": 3_600, "log_retention": {"days": 1, "events": 1}});
    for letter in ["a", "b"] {
        database.create_tenant(&tenant(letter, settings.clone())).await.unwrap();
    }
    let batch = [1, 2].map(|number| new_client("b", number, &public()));
    register(&*database, &batch, NOW).await;
    sqlx::query("UPDATE tenants SET settings = '{' WHERE name = 'a'").execute(&pool).await.unwrap();
    assert!(database.tenants().await.is_err());
    let readable = database.readable_tenants().await.unwrap();
    assert_eq!(readable.iter().map(|stored| stored.tenant.name.as_str()).collect::<Vec<_>>(), ["b"]);
    assert_eq!(client_upkeep::delete_unused(&*database, (NOW + DAY) * 1_000).await.unwrap(), 2);
    assert!(log_upkeep::prune(&*database).await.unwrap() > 0);
    pool.close().await;
    database.close().await;
}

#[tokio::test]
async fn what_is_left_of_a_deleted_tenant_is_out_of_reach() {
    let folder = Folder::empty();
    let database = dcr_edge::store::open(&folder.url(), IfMissing::Create).await.unwrap();
    let pool = sqlx::SqlitePool::connect(&folder.url()).await.unwrap();
    database.create_tenant(&tenant("a", json!({"unused_client_ttl": 3_600}))).await.unwrap();
    register_one(&*database, new_client("a", 1, &confidential()), NOW).await.unwrap();
    let stored = database.client(1, &client_id(1)).await.unwrap().unwrap();
    // As a deletion leaves it that was cut off.
    sqlx::query("UPDATE tenants SET deleted = 1").execute(&pool).await.unwrap();
    sqlx::query("DELETE FROM client_blocks").execute(&pool).await.unwrap();
    let data = ClientData { app_type: AppType::Spa, ..stored.data.clone() };
    assert!(database.replace_client(1, &stored, &data, NOW).await.unwrap().is_none());
    assert!(database.replace_client_secret(1, &client_id(1), [0; 32], NOW).await.unwrap().is_none());
    database.note_client_uses(&[(1, client_id(1))], NOW).await.unwrap();
    database.delete_client(1, &client_id(1)).await.unwrap();
    assert_eq!(database.delete_unused_clients(1, (NOW + DAY) * 1_000).await.unwrap(), 0);
    assert_eq!(database.client(1, &client_id(1)).await.unwrap().unwrap(), stored);
    assert!(counts(&pool).await[0].is_empty());
    pool.close().await;
    database.close().await;
}

async fn access_rules_are_put_into_another_order_at_once_and_share_the_priorities_that_there_are(
    database: Arc<dyn Database>,
) {
    database.create_tenant(&tenant("a", json!({}))).await.unwrap();
    let mut ids = Vec::new();
    for (description, priority) in [("one", 3), ("two", 3), ("three", 10), ("four", 2_147_483_647)] {
        ids.push(create_acl(&*database, 1, &acl(description, Some(priority), block_asn(1))).await.unwrap().id);
    }
    let idle = NetworkAcl { active: false, ..acl("idle", Some(2_147_483_647), block_asn(1)) };
    ids.push(create_acl(&*database, 1, &idle).await.unwrap().id);
    let head = async || database.changes(0, None).await.unwrap().head;
    let before = head().await;
    // As it is: nothing is told, and equal priorities come apart.
    assert_eq!(database.reorder_network_acls(1, &ids, NOW).await.unwrap(), Some(false));
    assert_eq!(head().await, before);
    let priorities = async || {
        let page = database.network_acls(1, 0, 10).await.unwrap();
        page.acls.iter().map(|acl| acl.priority).collect::<Vec<_>>()
    };
    assert_eq!(priorities().await, [3, 4, 10, 2_147_483_646, 2_147_483_647]);
    ids.swap(3, 4);
    assert_eq!(database.reorder_network_acls(1, &ids, NOW).await.unwrap(), Some(false), "one that is not active");
    assert_eq!(head().await, before);
    ids.reverse();
    assert_eq!(database.reorder_network_acls(1, &ids, NOW + 5).await.unwrap(), Some(true));
    assert_eq!(head().await, before + 1, "one change for all of them");
    assert_eq!(descriptions(&*database, 1).await, ["four", "idle", "three", "two", "one"]);
    assert_eq!(priorities().await, [3, 4, 10, 2_147_483_646, 2_147_483_647]);
    let active = database.active_rules(1).await.unwrap();
    assert_eq!(active.len(), 4);
}

async fn an_order_of_other_access_rules_than_there_are_is_not_made(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({}))).await.unwrap();
    database.create_tenant(&tenant("b", json!({}))).await.unwrap();
    let create = async |slot, text| create_acl(&*database, slot, &acl(text, None, block_asn(1))).await.unwrap().id;
    let (one, two, of_another) = (create(1, "one").await, create(1, "two").await, create(2, "x").await);
    for ids in [
        vec![],
        vec![two.clone()],
        vec![two.clone(), two.clone()],
        vec![two.clone(), one.clone(), one.clone()],
        vec![two.clone(), of_another.clone()],
        vec![two.clone(), one.clone(), of_another],
        vec![two, "x".to_owned()],
    ] {
        assert_eq!(database.reorder_network_acls(1, &ids, NOW).await.unwrap(), None, "{ids:?}");
    }
    assert_eq!(descriptions(&*database, 1).await, ["one", "two"]);
}

async fn clients_are_found_by_their_id_or_a_part_of_their_name_the_newest_first(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({}))).await.unwrap();
    database.create_tenant(&tenant("b", json!({}))).await.unwrap();
    let named = |tenant: &str, number: usize, name: &str| {
        let mut registration = public();
        registration["metadata"]["client_name"] = json!(name);
        new_client(tenant, number, &registration)
    };
    let batch = [
        named("a", 0, "Weather App"),
        named("a", 1, "100%_weather"),
        named("a", 2, "Ärger"),
        named("b", 3, "Weather of another"),
    ];
    register(&*database, &batch, NOW).await.into_iter().for_each(|answer| assert!(answer.is_ok()));
    let found = async |text: &str, limit| {
        let clients = database.find_clients(1, text, limit).await.unwrap();
        clients.into_iter().map(|client| client.client_id).collect::<Vec<_>>()
    };
    let [app, weather, anger, other] = [0, 1, 2, 3].map(client_id);
    assert_eq!(found("WEATHER", 9).await, [weather.clone(), app]);
    assert_eq!(found("weather", 1).await, std::slice::from_ref(&weather));
    assert_eq!(found("%_", 9).await, [weather]);
    assert_eq!(found("Ärg", 9).await, std::slice::from_ref(&anger));
    assert_eq!(found(&anger, 9).await, [anger]);
    assert!(found(&other, 9).await.is_empty());
    assert!(found("a\u{0}b", 9).await.is_empty());
}

async fn what_happened_to_registrations_is_told_by_slices_of_time(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({}))).await.unwrap();
    database.create_tenant(&tenant("b", json!({}))).await.unwrap();
    let (since, minute) = (NOW * 1_000, 60_000);
    let registered = json!({"description": "Dynamic client registration"});
    let refused = |reasons: Value| json!({"details": {"count": 9, "reasons": reasons}});
    for (slot, date, event_type, data) in [
        (1, since - 1, "sapi", registered.clone()),
        (1, since, "sapi", registered.clone()),
        (1, since + minute - 1, "sapi", registered.clone()),
        (1, since + 2 * minute, "sapi", registered.clone()),
        (1, since + 2 * minute, "sapi", json!({"description": "Update tenant settings"})),
        (1, since + minute, "fapi", refused(json!({"acl_blocked": 4, "registration_disabled": 1}))),
        (1, since + minute + 1, "fapi", refused(json!({"acl_blocked": 3}))),
        (1, since + minute, "api_limit", refused(json!({"rate_limited": 20}))),
        (2, since + minute, "api_limit", refused(json!({"rate_limited": 1}))),
    ] {
        database.write_log_event(slot, event_type, &data.to_string(), date).await.unwrap();
    }
    let activity = database.registration_activity(1, since, minute).await.unwrap();
    let mut seen: Vec<_> = activity.iter().map(|a| (a.slice, a.refused_for.as_deref(), a.count)).collect();
    seen.sort();
    let expected = [
        (0, None, 2),
        (1, Some("acl_blocked"), 7),
        (1, Some("rate_limited"), 20),
        (1, Some("registration_disabled"), 1),
        (2, None, 1),
    ];
    assert_eq!(seen, expected);
}

async fn a_link_signs_in_once_and_only_in_its_time(database: Arc<dyn Database>) {
    database.create_tenant(&tenant("a", json!({}))).await.unwrap();
    let link = |code, expires_at| SignInLink {
        code_sha256: [code; 32],
        tenant: 1,
        scope: "read:logs read:clients".to_owned(),
        session_ttl: 7,
        expires_at,
    };
    let create = async |link: SignInLink, now| database.create_sign_in_link(&link, now).await.unwrap();
    let take = async |code, now| database.take_sign_in_link(&[code; 32], now).await.unwrap();
    assert!(create(link(1, NOW + 10), NOW).await && create(link(2, NOW + 10), NOW).await);
    assert_eq!(take(9, NOW).await, None);
    let signed_in = take(1, NOW + 9).await.unwrap();
    assert_eq!((signed_in.tenant, signed_in.domain.as_str(), signed_in.session_ttl), (1, "a.example", 7));
    assert_eq!(signed_in.scope, "read:logs read:clients");
    assert_eq!(take(1, NOW + 9).await, None, "a second time");
    assert_eq!(take(2, NOW + 10).await, None, "too late");
    assert_eq!(take(2, NOW).await, None, "and gone");
    // Of those who come at the same time one is let in.
    assert!(create(link(3, NOW + 10), NOW).await);
    let mut tries = Vec::new();
    for _ in 0..8 {
        let database = Arc::clone(&database);
        tries.push(tokio::spawn(async move { database.take_sign_in_link(&[3; 32], NOW).await }));
    }
    let mut let_in = 0;
    for one in tries {
        let_in += usize::from(one.await.unwrap().unwrap().is_some());
    }
    assert_eq!(let_in, 1);
    // A tenant that is gone lets nobody in.
    assert!(create(link(4, NOW + 10), NOW).await);
    database.delete_tenant(&name("a")).await.unwrap();
    assert_eq!(take(4, NOW).await, None);
    assert!(!create(link(5, NOW + 10), NOW).await);
}

async fn a_search_in_a_log_finds_members_values_and_moments(database: Arc<dyn Database>) {
    let events = [
        (1_000, "sapi", json!({"description": "Dynamic client Registration", "client_name": "Ärger 100%", "ok": true})),
        (2_000, "fapi", json!({"details": {"reasons": ["one", "TWO"], "count": 7}, "user_agent": "a\u{0}b _ c"})),
        (3_000, "sapi", json!({"description": "Update tenant settings", "ok": false, "empty": null, "list": []})),
    ];
    database.create_tenant(&tenant("a", json!({}))).await.unwrap();
    database.create_tenant(&tenant("other", json!({}))).await.unwrap();
    let slot = async |of: &str| database.tenant(&name(of)).await.unwrap().unwrap().slot;
    for (date, event_type, data) in &events {
        for tenant in [slot("a").await, slot("other").await] {
            database.write_log_event(tenant, event_type, &data.to_string(), *date).await.unwrap();
        }
    }
    for (search, found) in [
        ("type:sapi", &[1_000, 3_000][..]),
        ("type:SAPI", &[1_000, 3_000]),
        ("type:sap", &[]),
        ("type:sap*", &[1_000, 3_000]),
        ("NOT type:sapi", &[2_000]),
        ("description:registration", &[1_000]),
        ("description:\"client reg\"", &[1_000]),
        ("client_name:100%", &[1_000]),
        ("client_name:Är*", &[1_000]),
        ("ok:true", &[1_000]),
        ("ok:false", &[3_000]),
        ("ok:1", &[]),
        ("ok:*", &[1_000, 3_000]),
        ("details.reasons:two", &[2_000]),
        ("details.reasons:t*", &[2_000]),
        ("details.count:7", &[2_000]),
        ("details.none:7", &[]),
        ("list:*", &[]),
        ("TWO", &[2_000]),
        ("settings", &[3_000]),
        ("true", &[1_000]),
        ("description:update OR details.count:7", &[2_000, 3_000]),
        ("type:sapi AND ok:false", &[3_000]),
        ("user_agent:_", &[2_000]),
    ] {
        let filter = Some(LogFilter::parse(search).unwrap());
        assert_eq!(database.log_total(slot("a").await, filter.as_ref()).await.unwrap(), found.len() as u64, "{search}");
        let query = LogQuery { filter, order: LogOrder::OldestFirst(0), limit: 9 };
        let events = database.log_events(slot("a").await, &query).await.unwrap();
        assert_eq!(events.iter().map(|event| event.date).collect::<Vec<_>>(), found, "{search}");
    }
}
