//! Edge and store on different machines: each knows the other by its certificate, and nobody else gets in between.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::stores::register;
use crate::support::gateway::{Gateway, Options};
use crate::support::process::eventually;
use crate::support::store::{Folder, Store};
use crate::support::{output_of, root};

/// Makes certificates that are good for so many days.
fn make_certificates(dir: &Path, days: u32) {
    let mut command = Command::new(root().join("envoy/store-certificates.sh"));
    output_of(command.arg(dir).env("DAYS", days.to_string()));
}

fn certificates(days: u32) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    make_certificates(dir.path(), days);
    dir
}

/// A store that listens with TLS too, and where.
fn serve(folder: &Folder, certificates: &Path) -> (Store, SocketAddr) {
    let file = |name: &str| certificates.join(name).display().to_string();
    let (certificate, key, ca) = (file("store.pem"), file("store-key.pem"), file("store-ca.pem"));
    let store = folder.serve_with(&[
        "--tls-listen",
        "127.0.0.1:0",
        "--tls-certificate",
        &certificate,
        "--tls-key",
        &key,
        "--client-ca",
        &ca,
    ]);
    let log = store.process.log();
    let address = log.lines().find_map(|line| line.strip_prefix("listening with TLS on ")).unwrap().parse().unwrap();
    (store, address)
}

fn gateway(folder: &Folder, address: SocketAddr, certificates: &Path, edit: fn(String) -> String) -> Gateway {
    Gateway::start(Options {
        store: Some(address),
        edge_token: folder.succeed(&["token", "--kind", "edge"]).trim().to_owned(),
        store_certificates: Some(certificates.to_owned()),
        edit: Box::new(edit),
        ..Options::default()
    })
}

#[test]
fn edges_and_stores_show_each_other_certificates_and_changed_ones_need_no_restart_of_the_store() {
    let folder = Folder::with_default_tenant();
    let certificates = certificates(2);
    let (store, address) = serve(&folder, certificates.path());
    let mut gateway = gateway(&folder, address, certificates.path(), |configuration| configuration);
    gateway.wait_for_settings();
    assert_eq!(register(gateway.http_address()).status, 201);
    // A key without its certificate is no change yet.
    let (key, kept) = (certificates.path().join("store-key.pem"), certificates.path().join("kept.pem"));
    std::fs::copy(&key, &kept).unwrap();
    std::fs::copy(certificates.path().join("edge-key.pem"), &key).unwrap();
    let says = |what: &str| eventually(what, || store.process.log().contains(what).then_some(()));
    says("the changed certificates for TLS are of no use; those before stay in force");
    assert_eq!(register(gateway.http_address()).status, 201);
    std::fs::rename(kept, key).unwrap();
    // Another authority, too: neither side takes those before any more.
    std::fs::remove_file(certificates.path().join("store-ca.pem")).unwrap();
    make_certificates(certificates.path(), 2);
    says("the certificates for TLS have changed and are in force");
    gateway.restart_envoy();
    gateway.wait_for_settings();
    assert_eq!(register(gateway.http_address()).status, 201);
}

#[test]
fn nobody_gets_to_the_store_without_a_certificate_of_its_authority_that_is_in_force() {
    let folder = Folder::with_default_tenant();
    let good = certificates(2);
    let (store, address) = serve(&folder, good.path());
    let others = certificates(2);
    let with_authority_of = |dir: TempDir, authority: &Path| {
        std::fs::copy(authority.join("store-ca.pem"), dir.path().join("store-ca.pem")).unwrap();
        dir
    };
    let strangers = with_authority_of(certificates(2), good.path());
    let ended = tempfile::tempdir().unwrap();
    for file in ["store-ca.pem", "store-ca-key.pem"] {
        std::fs::copy(good.path().join(file), ended.path().join(file)).unwrap();
    }
    make_certificates(ended.path(), 0);
    std::thread::sleep(Duration::from_millis(1_100));
    let without = |configuration: String| {
        let (before, rest) = configuration
            .split_once("          tls_certificates:\n          - certificate_chain:\n              filename: ")
            .unwrap();
        let (_, after) = rest.split_once("          validation_context:\n            trusted_ca:").unwrap();
        format!("{before}          validation_context:\n            trusted_ca:{after}")
    };
    let as_server = |dir: TempDir| {
        for file in ["", "-key"] {
            let copy = |name: &str| dir.path().join(format!("{name}{file}.pem"));
            std::fs::copy(copy("store"), copy("edge")).unwrap();
        }
        dir
    };
    let server = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(good.path()).unwrap().flatten() {
        std::fs::copy(entry.path(), server.path().join(entry.file_name())).unwrap();
    }
    let server = as_server(server);
    let as_it_is: fn(String) -> String = |configuration| configuration;
    for (what, dir, edit, store_says) in [
        ("none", good.path(), without as fn(String) -> String, "peer sent no certificates"),
        ("a stranger's", strangers.path(), as_it_is, "BadSignature"),
        ("one that has ended", ended.path(), as_it_is, "certificate expired"),
        ("a store's", server.path(), as_it_is, "does not allow extended key usage for client authentication"),
        // This one is the edge's to refuse: another's certificate in the store's place.
        ("a store of another authority", others.path(), as_it_is, "UnknownCA"),
        (
            "a store of another name",
            good.path(),
            |text: String| text.replace("exact: 'dcr-store'", "exact: 'other'"),
            "CertificateUnknown",
        ),
    ] {
        let gateway = gateway(&folder, address, dir, edit);
        eventually(&format!("{what}: the store says {store_says}"), || {
            let log = store.process.log();
            log.lines().any(|line| line.contains("a TLS handshake failed") && line.contains(store_says)).then_some(())
        });
        assert_eq!(register(gateway.http_address()).status, 503, "{what}");
        assert_eq!(gateway.decisions("settings_polled"), 0, "{what}");
    }
    // Nor without TLS.
    assert!(crate::support::store::Caller::new(address).try_call("GET", "/livez", &[], None).is_err());
    assert!(folder.client_ids().is_empty());
}

#[test]
fn whoever_is_slow_with_a_handshake_is_in_nobodys_way_and_soon_gone() {
    let folder = Folder::with_default_tenant();
    let certificates = certificates(2);
    let (_store, address) = serve(&folder, certificates.path());
    let mut gateway = gateway(&folder, address, certificates.path(), |configuration| configuration);
    gateway.wait_for_settings();
    let mut silent: Vec<_> = (0..400).map(|_| TcpStream::connect(address).unwrap()).collect();
    let start = Instant::now();
    gateway.restart_envoy();
    gateway.wait_for_settings();
    assert_eq!(register(gateway.http_address()).status, 201);
    for stream in &mut silent {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert!(matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)));
    }
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

#[test]
fn files_that_are_of_no_use_stop_the_start_with_one_line_that_names_them() {
    let folder = Folder::with_default_tenant();
    let certificates = certificates(2);
    let file = |name: &str| certificates.path().join(name).display().to_string();
    std::fs::write(file("empty.pem"), "").unwrap();
    for (certificate, key, ca, says) in [
        ("missing.pem", "store-key.pem", "store-ca.pem", "missing.pem: No such file"),
        ("empty.pem", "store-key.pem", "store-ca.pem", "empty.pem has no certificate in PEM"),
        ("store.pem", "empty.pem", "store-ca.pem", "empty.pem has no private key in PEM"),
        ("store.pem", "edge-key.pem", "store-ca.pem", "edge-key.pem: "),
        ("store.pem", "store-key.pem", "empty.pem", "empty.pem has no certificate in PEM"),
    ] {
        let error = folder.fail(&[
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--tls-listen",
            "127.0.0.1:0",
            "--tls-certificate",
            &file(certificate),
            "--tls-key",
            &file(key),
            "--client-ca",
            &file(ca),
        ]);
        assert!(error.contains(says), "{error}");
    }
    let error = folder.run(&["serve", "--tls-listen", "127.0.0.1:0"]);
    assert_eq!(error.status.code(), Some(2));
}
