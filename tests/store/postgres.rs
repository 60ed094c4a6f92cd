//! What only PostgreSQL can do, and what only there can fail: several stores, a server that goes away, a pooler.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use dcr_edge::edge_api::RegisteredBy;
use dcr_edge::rate_limit::Bucket;
use dcr_edge::store::admission::{NewClient, Refusal};
use dcr_edge::store::clock::{Clock, Now};
use dcr_edge::store::db::{Arrival, Database, Error, IfMissing, Registered, update_tenant};
use dcr_edge::store::{open, open_and_migrate};
use dcr_edge::tenant::Tenant;
use serde_json::json;
use sqlx::{Connection, Executor};

use crate::support::postgres::{PASSWORD, Proxy, Server, connect, execute, try_connect};
use crate::support::process::{PATIENCE, eventually};
use crate::support::store::{Folder, client_id, confidential, public, runtime};

/// The longest that a registration may take while the server is replaced: three seconds of attempts, the last of which
/// may take two.
const LONGEST: Duration = Duration::from_secs(6);

fn folder() -> Option<Folder> {
    Server::shared().map(|server| Folder::on(server.create_database()))
}

fn with_default_tenant(folder: Folder) -> Folder {
    folder.create_enabled_tenant("default", json!({}));
    folder
}

fn now() -> Now {
    Clock::of_this_machine().unwrap().now()
}

fn arrival(tenant: &str, number: usize, registered_by: RegisteredBy) -> Arrival {
    let client = NewClient {
        registered_by,
        tenant: tenant.parse().unwrap(),
        client_id: client_id(number),
        client_secret_sha256: None,
        metadata: serde_json::value::to_raw_value(&public()["metadata"]).unwrap(),
        origin: Default::default(),
        request_id: None,
    };
    Arrival { client, at: now() }
}

async fn register(database: &dyn Database, number: usize) -> Result<Registered, Error> {
    let mut answers = database.register(&[arrival("default", number, RegisteredBy::Edge)]).await?;
    Ok(answers.remove(0).unwrap())
}

async fn is_there(database: &dyn Database, number: usize) -> bool {
    let slot = database.tenant(&"default".parse().unwrap()).await.unwrap().unwrap().slot;
    database.client(slot, &client_id(number)).await.unwrap().is_some()
}

/// A multi-threaded runtime: stores that share a database are no tasks of one thread.
fn threads() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap()
}

#[test]
fn no_change_becomes_visible_behind_a_later_one() {
    const STORES: usize = 4;
    const ROUNDS: usize = 60;
    let Some(folder) = folder() else { return };
    for number in 0..STORES {
        folder.create_enabled_tenant(&format!("t{number}"), json!({"registrar": "forward"}));
    }
    threads().block_on(async {
        let reader = open(&folder.url(), IfMissing::Refuse).await.unwrap();
        let first = reader.changes(0, None).await.unwrap();
        let writers: Vec<_> = (0..STORES)
            .map(|store| {
                let url = folder.url();
                thread::spawn(move || runtime().block_on(write(url, store, STORES, ROUNDS)))
            })
            .collect();
        // Each change is asked for behind the last one that was seen, and never again.
        let (mut head, mut clients, mut pages) = (first.head, HashSet::new(), 0);
        loop {
            let is_over = writers.iter().all(thread::JoinHandle::is_finished);
            let page = reader.changes(head, Some(&first.instance)).await.unwrap();
            assert!(!page.full && page.head >= head);
            pages += usize::from(page.head > head);
            head = page.head;
            clients.extend(page.clients.into_iter().map(|change| change.client_id.unwrap()));
            if is_over && !page.more {
                break;
            }
        }
        for writer in writers {
            writer.join().unwrap();
        }
        let missing: Vec<_> = (0..STORES * ROUNDS).map(client_id).filter(|id| !clients.contains(id)).collect();
        assert!(missing.is_empty(), "never told: {missing:?}");
        assert!(pages > 10, "{pages} pages: the reader was too slow to see anything of the way");
        reader.close().await;
    });
}

/// Registers clients of which edges are told, and changes tenants, each time another.
async fn write(url: String, store: usize, stores: usize, rounds: usize) {
    let database = open(&url, IfMissing::Refuse).await.unwrap();
    for round in 0..rounds {
        let tenant = format!("t{}", (store + round) % stores);
        let client = arrival(&tenant, store * rounds + round, RegisteredBy::Server);
        assert!(database.register(&[client]).await.unwrap()[0].is_ok());
        let change = |mut tenant: Tenant| {
            tenant.settings.dcr_edge.client_quota = u32::try_from(1_000 + round).unwrap().try_into().ok();
            Ok::<_, Error>(tenant)
        };
        update_tenant(&*database, &tenant.parse().unwrap(), now(), change).await.unwrap().unwrap();
    }
    database.close().await;
}

#[test]
fn stores_that_start_together_bring_an_empty_database_up_to_date_once() {
    let Some(server) = Server::shared() else { return };
    let url = server.create_database();
    let openers: Vec<_> = (0..8)
        .map(|_| {
            let url = url.clone();
            thread::spawn(move || {
                runtime().block_on(async {
                    let database = open_and_migrate(&url, IfMissing::Create).await.unwrap();
                    let instance = database.changes(0, None).await.unwrap().instance;
                    database.close().await;
                    instance
                })
            })
        })
        .collect();
    let instances: HashSet<String> = openers.into_iter().map(|opener| opener.join().unwrap()).collect();
    assert_eq!(instances.len(), 1);
}

#[test]
fn what_one_store_writes_the_other_ones_have_at_once() {
    let Some(folder) = folder() else { return };
    let folder = with_default_tenant(folder);
    let stores = [folder.serve(), folder.serve()];
    let owners = stores.each_ref().map(|store| store.owner("default"));
    for number in 0..20 {
        let (here, there) = (number % 2, (number + 1) % 2);
        let id = client_id(number);
        assert_eq!(stores[here].edge().put_client("default", &id, &confidential()).status, 201);
        assert_eq!(stores[there].edge().put_client("default", &id, &confidential()).status, 200);
        assert_eq!(owners[there].get(&format!("/api/v2/clients/{id}")).status, 200);
        let quota = json!({"dcr_edge": {"client_quota": 100 + number}});
        assert_eq!(owners[here].patch_settings(&quota).status, 200);
        let settings = owners[there].get("/api/v2/tenants/settings").json();
        assert_eq!(settings["dcr_edge"]["client_quota"], 100 + number, "{settings}");
    }
    // The batch of one store keeps to what the other one's owner said a moment before.
    let switch = |on: bool| json!({"flags": {"enable_dynamic_client_registration": on}});
    for on in [false, true] {
        assert_eq!(owners[0].patch_settings(&switch(on)).status, 200);
        let answer = stores[1].edge().put_client("default", &client_id(100), &confidential());
        assert_eq!(answer.status, if on { 201 } else { 403 }, "{answer:?}");
    }
}

#[test]
fn a_batch_survives_the_end_of_every_connection() {
    let Some(folder) = folder() else { return };
    let folder = with_default_tenant(folder);
    runtime().block_on(async {
        let database = open(&folder.url(), IfMissing::Refuse).await.unwrap();
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid()";
        for number in 0..5 {
            register(&*database, number).await.unwrap();
            execute(&folder.url(), end).await;
            register(&*database, 100 + number).await.unwrap();
        }
        database.close().await;
    });
}

#[test]
fn a_batch_that_others_are_in_the_way_of_is_tried_once_more() {
    let Some(folder) = folder() else { return };
    let folder = with_default_tenant(folder);
    runtime().block_on(async {
        let database = open(&folder.url(), IfMissing::Refuse).await.unwrap();
        for (number, state) in ["40001", "40P01", "25006", "57P01", "53300", "55P03"].into_iter().enumerate() {
            // A sequence does not go back with its transaction: the first two attempts fail.
            let fail = format!(
                "CREATE SEQUENCE attempts; \
                 CREATE FUNCTION fail() RETURNS trigger AS $$ BEGIN \
                 IF nextval('attempts') < 3 THEN RAISE EXCEPTION 'no' USING ERRCODE = '{state}'; END IF; \
                 RETURN NEW; END $$ LANGUAGE plpgsql; \
                 CREATE TRIGGER fail BEFORE INSERT ON clients FOR EACH ROW EXECUTE FUNCTION fail()"
            );
            execute(&folder.url(), &fail).await;
            let registered = register(&*database, number).await;
            assert!(registered.as_ref().is_ok_and(|registered| registered.created), "{state}: {registered:?}");
            execute(&folder.url(), "DROP TRIGGER fail ON clients; DROP FUNCTION fail; DROP SEQUENCE attempts").await;
        }
        // What no attempt can mend is not tried again, and nothing of it is told.
        let fail = "CREATE SEQUENCE attempts; CREATE FUNCTION fail() RETURNS trigger AS $$ BEGIN \
             PERFORM nextval('attempts'); RAISE EXCEPTION 'secret words'; END $$ LANGUAGE plpgsql; \
             CREATE TRIGGER fail BEFORE INSERT ON clients FOR EACH ROW EXECUTE FUNCTION fail()";
        execute(&folder.url(), fail).await;
        let error = register(&*database, 50).await.unwrap_err();
        assert_eq!(error.to_string(), "the database failed: PostgreSQL reported the error P0001");
        let attempts: i64 = sqlx::query_scalar("SELECT last_value FROM attempts")
            .fetch_one(&mut connect(&folder.url()).await)
            .await
            .unwrap();
        assert_eq!(attempts, 1);
        database.close().await;
    });
}

#[test]
fn an_id_that_two_stores_write_for_two_tenants_at_once_is_one_tenants() {
    const ROUNDS: usize = 30;
    let Some(folder) = folder() else { return };
    for name in ["a", "b"] {
        folder.create_enabled_tenant(name, json!({}));
    }
    let start = Barrier::new(2);
    let of = |tenant: &'static str| {
        let (url, start) = (folder.url(), &start);
        move || {
            runtime().block_on(async {
                let database = open(&url, IfMissing::Refuse).await.unwrap();
                let mut answers = Vec::new();
                for number in 0..ROUNDS {
                    start.wait();
                    answers.push(database.register(&[arrival(tenant, number, RegisteredBy::Edge)]).await);
                }
                database.close().await;
                answers
            })
        }
    };
    let [a, b] =
        thread::scope(|scope| [scope.spawn(of("a")), scope.spawn(of("b"))].map(|thread| thread.join().unwrap()));
    for (a, b) in a.into_iter().zip(b) {
        let answers = [a.unwrap().remove(0), b.unwrap().remove(0)];
        assert!(matches!(answers, [Ok(_), Err(Refusal::Conflict)] | [Err(Refusal::Conflict), Ok(_)]), "{answers:?}");
    }
}

#[test]
fn a_standby_that_takes_over_has_every_client_that_was_acknowledged() {
    // What is acknowledged is on both.
    let settings = ["synchronous_standby_names = '*'", "synchronous_commit = 'remote_apply'"];
    let Some(mut primary) = Server::start(&[]) else { return };
    let mut standby = Server::standby_of(&primary, &[]).unwrap();
    let proxy = Proxy::to(primary.port());
    let url = primary.create_database();
    let folder = with_default_tenant(Folder::on(url.clone()));
    threads().block_on(async {
        for setting in settings {
            execute(&primary.url_of("postgres"), &format!("ALTER SYSTEM SET {setting}")).await;
        }
        execute(&primary.url_of("postgres"), "SELECT pg_reload_conf()").await;
    });
    let database = threads();
    let (stop, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let store = database.block_on(open(&proxy.url(&url), IfMissing::Refuse)).unwrap();
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (store, stop, next) = (Arc::clone(&store), Arc::clone(&stop), Arc::clone(&next));
            database.spawn(async move {
                let (mut acknowledged, mut slowest) = (Vec::new(), Duration::ZERO);
                while !stop.load(Ordering::SeqCst) {
                    let (number, asked) = (next.fetch_add(1, Ordering::SeqCst), Instant::now());
                    match register(&*store, number).await {
                        Ok(_) => acknowledged.push(number),
                        Err(error) => assert!(matches!(error, Error::Unavailable(_)), "{error}"),
                    }
                    slowest = slowest.max(asked.elapsed());
                }
                (acknowledged, slowest)
            })
        })
        .collect();
    thread::sleep(Duration::from_millis(700));
    let before = next.load(Ordering::SeqCst);
    primary.kill();
    standby.promote();
    // Nothing waits for a standby of its own there.
    proxy.lead_to(standby.port());
    let at_takeover = next.load(Ordering::SeqCst);
    eventually("registrations go on", || (next.load(Ordering::SeqCst) > at_takeover + 50).then_some(()));
    stop.store(true, Ordering::SeqCst);
    database.block_on(async {
        let mut all = Vec::new();
        for task in load {
            let (acknowledged, slowest) = task.await.unwrap();
            assert!(slowest < LONGEST, "a registration took {slowest:?}");
            all.extend(acknowledged);
        }
        assert!(before > 20 && all.len() > before, "{before} before, {} at all", all.len());
        for number in &all {
            assert!(is_there(&*store, *number).await, "{number} of {} is lost", all.len());
        }
        store.close().await;
    });
    drop((folder, standby, primary));
}

#[test]
fn a_server_that_vanishes_without_a_word_is_given_up_soon() {
    let Some(folder) = folder() else { return };
    let folder = with_default_tenant(folder);
    let port = folder.url().split(':').nth(3).unwrap().split('/').next().unwrap().parse().unwrap();
    let proxy = Proxy::to(port);
    threads().block_on(async {
        let database = open(&proxy.url(&folder.url()), IfMissing::Refuse).await.unwrap();
        for round in 0..2 {
            // Every connection is in use when it happens, as it is under load.
            for number in 0..8 {
                register(&*database, round * 100 + number).await.unwrap();
                assert!(is_there(&*database, number).await);
            }
            proxy.grow_silent();
            let asked = Instant::now();
            register(&*database, round * 100 + 50).await.unwrap();
            assert!(asked.elapsed() < LONGEST, "{:?}", asked.elapsed());
            let asked = Instant::now();
            while !matches!(tokio::time::timeout(LONGEST, database.ping()).await, Ok(Ok(()))) {
                assert!(asked.elapsed() < PATIENCE, "readers still wait");
            }
        }
        database.close().await;
    });
}

#[test]
fn a_server_without_a_free_connection_is_no_reason_to_wait_for_long() {
    let Some(server) = Server::shared() else { return };
    let owner_url = server.create_database();
    let database = owner_url.rsplit('/').next().unwrap();
    // The first user may do whatever he likes, which a store need not.
    let role = format!("{database}_user");
    runtime().block_on(async {
        for statement in [format!("CREATE ROLE {role} LOGIN"), format!("ALTER DATABASE {database} OWNER TO {role}")] {
            execute(&owner_url, &statement).await;
        }
    });
    let folder = with_default_tenant(Folder::on(owner_url.replace("dcr:", &format!("{role}:"))));
    let store = folder.serve();
    let put = |number| store.edge().put_client("default", &client_id(number), &confidential());
    let mut held = Vec::new();
    runtime().block_on(async {
        execute(&owner_url, &format!("ALTER DATABASE {database} CONNECTION LIMIT 4")).await;
        execute(
            &owner_url,
            &format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'"),
        )
        .await;
        // Those that were ended take a moment.
        while held.len() < 4 {
            held.extend(try_connect(&folder.url()).await);
        }
    });
    let asked = Instant::now();
    let refused = put(1);
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(asked.elapsed() < LONGEST, "{:?}", asked.elapsed());
    runtime().block_on(async {
        for connection in held {
            _ = connection.close_hard().await;
        }
    });
    eventually("registrations work again", || (put(2).status == 201).then_some(()));
}

#[test]
fn whoever_holds_a_tenant_keeps_its_writers_waiting_and_not_its_readers() {
    let Some(folder) = folder() else { return };
    let folder = with_default_tenant(folder);
    folder.create_enabled_tenant("other", json!({}));
    let store = folder.serve();
    let (owner, other) = (store.owner("default"), store.owner("other"));
    let patch = json!({"dcr_edge": {"client_quota": 7}});
    let runtime = runtime();
    let mut holder = runtime.block_on(connect(&folder.url()));
    runtime.block_on(async {
        holder.execute("BEGIN; SELECT 1 FROM tenants WHERE name = 'default' FOR UPDATE").await.unwrap();
    });
    let asked = Instant::now();
    thread::scope(|scope| {
        let writers: Vec<_> = (0..3).map(|_| scope.spawn(|| owner.patch_settings(&patch).status)).collect();
        thread::sleep(Duration::from_millis(300));
        assert_eq!(owner.get("/api/v2/tenants/settings").status, 200);
        assert_eq!(other.patch_settings(&patch).status, 200);
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
        for writer in writers {
            assert_eq!(writer.join().unwrap(), 503);
        }
    });
    assert!(asked.elapsed() < LONGEST, "{:?}", asked.elapsed());
    runtime.block_on(async { holder.execute("ROLLBACK").await.unwrap() });
    assert_eq!(owner.patch_settings(&patch).status, 200);
}

#[test]
fn a_server_whose_clock_is_set_back_locks_nobody_out() {
    let Some(folder) = folder() else { return };
    folder.create_enabled_tenant("default", json!({"rate_limit": {"burst": 3, "per_second": 1}}));
    runtime().block_on(async {
        let database = open(&folder.url(), IfMissing::Refuse).await.unwrap();
        let take = async |number| {
            database.register(&[arrival("default", number, RegisteredBy::Edge)]).await.unwrap().remove(0).is_ok()
        };
        for number in 0..4 {
            assert!(take(number).await);
        }
        // What the bucket has was measured an hour from now, as if the clock had been set back by that since.
        let mut connection = connect(&folder.url()).await;
        let (tokens, changed_at): (Vec<u8>, i64) =
            sqlx::query_as("SELECT tokens, changed_at FROM buckets").fetch_one(&mut connection).await.unwrap();
        let (here, there) = (changed_at as u64, changed_at as u64 + 3_600_000_000_000);
        let tokens = Bucket::decode(&tokens).unwrap().on_another_clock(here, there).encode();
        let shift =
            sqlx::query("UPDATE buckets SET tokens = $1, changed_at = $2").bind(tokens.as_slice()).bind(there as i64);
        shift.execute(&mut connection).await.unwrap();
        assert!(!take(4).await, "a step of the clock gives no tokens");
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        assert_eq!([take(5).await, take(6).await], [true, false]);
        database.close().await;
    });
}

#[test]
fn what_cannot_be_opened_is_told_in_one_line_without_the_password() {
    let Some(server) = Server::shared() else { return };
    let refused = |url: &str| {
        let error = Folder::on(url.to_owned()).fail(&["serve", "--listen", "127.0.0.1:0"]);
        assert!(!error.contains(PASSWORD), "{error}");
        error
    };
    let error = refused(&server.url_of("nobodys"));
    assert!(error.contains("/nobodys: there is no database of this name; make it with createdb"), "{error}");
    let error = refused(&format!("{}?pasword={PASSWORD}", server.url_of("x")));
    assert!(error.contains("it has an unknown parameter; there are application_name, "), "{error}");
    let error = refused(&format!("postgres://dcr:{PASSWORD}@127.0.0.1:port/x"));
    assert!(error.contains("it is not well-formed; expected postgres://USER:PASSWORD@HOST:PORT/DATABASE"), "{error}");
    let error = refused(&format!("postgres://dcr:{PASSWORD}@127.0.0.1:1/x"));
    assert!(error.contains("postgres://127.0.0.1:1/x: Connection refused"), "{error}");

    let foreign = server.create_database();
    runtime().block_on(execute(&foreign, "CREATE TABLE cats (name text)"));
    let error = refused(&foreign);
    assert!(error.contains("the tables of another program are there; choose another database"), "{error}");
    let careless = server.create_database();
    let database = careless.rsplit('/').next().unwrap();
    runtime().block_on(execute(&careless, &format!("ALTER DATABASE {database} SET synchronous_commit = off")));
    assert!(refused(&careless).contains("synchronous_commit is off"));
    let newer = with_default_tenant(Folder::on(server.create_database()));
    runtime().block_on(execute(&newer.url(), "UPDATE _sqlx_migrations SET version = 99 WHERE version = 1"));
    assert!(refused(&newer.url()).contains("it was written by a newer version of dcr-store"));
    let to = newer.path().join("copy.db");
    let error = with_default_tenant(Folder::on(server.create_database())).fail(&["backup", to.to_str().unwrap()]);
    assert!(error.contains("use pg_dump") && !to.exists(), "{error}");
}

#[test]
fn a_tenant_moves_from_a_file_to_a_server_and_back() {
    let Some(server) = Server::shared() else { return };
    let file = Folder::with_default_tenant();
    let store = file.serve();
    for number in 0..30 {
        let registration = if number % 2 == 0 { confidential() } else { public() };
        assert_eq!(store.edge().put_client("default", &client_id(number), &registration).status, 201);
    }
    let api = json!({"name": "Back\\slash, \\u0000 and \u{1f600}", "identifier": "https://api.example/", "scopes": [{"value": "read"}]});
    let created = store.owner("default").send("POST", "/api/v2/resource-servers", &api);
    assert_eq!(created.status, 201, "{created:?}");
    drop(store);
    let exported = file.path().join("all.jsonl");
    let export = |folder: &Folder| folder.succeed(&["export"]);
    let lines = export(&file);
    std::fs::write(&exported, &lines).unwrap();
    let there = Folder::on(server.create_database());
    there.succeed(&["import", exported.to_str().unwrap()]);
    assert_eq!(export(&there), lines);
}

#[test]
fn every_statement_of_a_store_finds_its_way_through_a_pooler_of_transactions() {
    let Some(server) = Server::shared() else { return };
    let Some(pooler) = crate::support::postgres::Pooler::start(server) else { return };
    let url = server.create_database();
    let folder = with_default_tenant(Folder::on(pooler.url(&url)));
    let store = folder.serve();
    let owner = store.owner("default");
    let refused = AtomicUsize::new(0);
    thread::scope(|scope| {
        for thread in 0..8 {
            let (edge, owner, refused) = (store.edge(), owner.clone(), &refused);
            scope.spawn(move || {
                for round in 0..15 {
                    let id = client_id(thread * 100 + round);
                    let statuses = [
                        edge.put_client("default", &id, &confidential()).status,
                        owner.get(&format!("/api/v2/clients/{id}")).status,
                        owner.get("/api/v2/clients?include_totals=true").status,
                        owner.get("/api/v2/logs?q=type:sapi").status,
                        owner.patch_settings(&json!({"dcr_edge": {"client_quota": 1_000 + thread}})).status,
                    ];
                    refused.fetch_add(usize::from(statuses != [201, 200, 200, 200, 200]), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(refused.into_inner(), 0, "{}", store.process.log());
    assert_eq!(owner.get("/api/v2/clients?include_totals=true").json()["total"], 120);
}

#[test]
fn no_call_reads_more_clients_than_it_tells_of() {
    const CLIENTS: u32 = 60_000;
    let Some(folder) = folder() else { return };
    let folder = with_default_tenant(folder);
    folder.fill_with_clients(CLIENTS);
    let store = folder.serve();
    let (owner, edge) = (store.owner("default"), store.edge());
    owner.patch_settings(&json!({"dcr_edge": {"client_quota": CLIENTS + 10, "deduplicate_public_clients": true}}));
    let grant = json!({"name": "API", "identifier": "https://api.example/", "scopes": [{"value": "read"}]});
    assert_eq!(owner.send("POST", "/api/v2/resource-servers", &grant).status, 201);
    let read = || -> i64 {
        // What a session counted is told when it has been idle for a moment.
        thread::sleep(Duration::from_millis(1_200));
        let counted = "SELECT CAST(coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0) AS BIGINT) \
             FROM pg_stat_user_tables WHERE relname IN ('clients', 'client_blocks', 'client_grants')";
        runtime()
            .block_on(async { sqlx::query_scalar(counted).fetch_one(&mut connect(&folder.url()).await).await.unwrap() })
    };
    let id = client_id(700);
    let grant = json!({"client_id": id, "audience": "https://api.example/", "scope": ["read"], "subject_type": "user"});
    let default = json!({"default_for": "third_party_clients", "audience": "https://api.example/",
        "scope": ["read"], "subject_type": "user"});
    let last = format!("/api/v2/clients?page={}&per_page=50&include_totals=true", CLIENTS / 50 - 1);
    let path = format!("/api/v2/clients/{id}");
    let calls: [(&str, u16, &dyn Fn() -> u16); 12] = [
        ("a registration", 201, &|| edge.put_client("default", &id, &confidential()).status),
        ("the same again", 200, &|| edge.put_client("default", &id, &confidential()).status),
        ("a public registration", 201, &|| edge.put_client("default", &client_id(701), &public()).status),
        ("one that is folded", 200, &|| edge.put_client("default", &client_id(702), &public()).status),
        ("the first page", 200, &|| owner.get("/api/v2/clients?per_page=50&include_totals=true").status),
        ("the last page", 200, &|| owner.get(&last).status),
        ("pages of one type", 200, &|| owner.get("/api/v2/clients?app_type=spa&include_totals=true").status),
        ("a client", 200, &|| owner.get(&path).status),
        ("its change", 200, &|| owner.send("PATCH", &path, &json!({"name": "Other"})).status),
        ("its grant", 201, &|| owner.send("POST", "/api/v2/client-grants", &grant).status),
        ("a default grant", 201, &|| owner.send("POST", "/api/v2/client-grants", &default).status),
        ("its end", 204, &|| owner.call("DELETE", &path, &[], None).status),
    ];
    let before = read();
    for (what, status, call) in calls {
        assert_eq!(call(), status, "{what}");
    }
    // For each of three pages the numbers, the clients, and what is skipped of a block of 2,048.
    let rows = read() - before;
    assert!(rows < 10_000, "{rows} rows were read");
}
