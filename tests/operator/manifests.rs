//! What an operator copies for Kubernetes and for containers.

use std::path::Path;
use std::process::Command;

use dcr_edge::store::db::IfMissing;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::support::gateway::tool;
use crate::support::process;
use crate::support::{envoy, output_of, root, store_binary};

const WASM: &str = "target/wasm32-wasip1/release/dcr_edge.wasm";

/// Checks the manifests of a repository; gives what is wrong.
fn check(python: &Path, repository: &Path, folder: &Path) -> Result<(), String> {
    let script = root().join("tests/operator/manifests.py");
    let output = process::output(Command::new(python).arg(script).arg(repository).arg(folder));
    if output.status.success() { Ok(()) } else { Err(String::from_utf8(output.stderr).unwrap()) }
}

#[test]
fn every_manifest_is_what_its_schema_wants_and_what_they_name_of_each_other_is_there() {
    let Some(python) = tool("DCR_TEST_MANIFESTS") else { return };
    let folder = tempfile::tempdir().unwrap();
    check(&python, root(), folder.path()).unwrap();
}

#[test]
fn every_envoy_takes_what_the_patches_of_istio_and_envoy_gateway_make_of_its_configuration() {
    let Some(python) = tool("DCR_TEST_MANIFESTS") else { return };
    let folder = tempfile::tempdir().unwrap();
    check(&python, root(), folder.path()).unwrap();
    output_of(Command::new(root().join("envoy/store-certificates.sh")).arg(folder.path()).arg("dcr-store"));
    let file = |name: &str| folder.path().join(name).display().to_string();
    for name in ["istio", "envoy-gateway"] {
        let path = folder.path().join(format!("{name}.json"));
        let configuration = std::fs::read_to_string(&path)
            .unwrap()
            .replace("/etc/dcr-edge/filter/plugin.wasm", &root().join(WASM).display().to_string())
            .replace("/etc/dcr-edge/tls/tls.crt", &file("edge.pem"))
            .replace("/etc/dcr-edge/tls/tls.key", &file("edge-key.pem"))
            .replace("/etc/dcr-edge/tls/ca.crt", &file("store-ca.pem"));
        std::fs::write(&path, configuration).unwrap();
        for envoy in envoy::matrix() {
            let mut validate = Command::new(envoy);
            output_of(validate.args(["--mode", "validate", "-c"]).arg(&path).env("DCR_EDGE_TOKEN", "any"));
        }
    }
}

/// A copy of what the checks look at, with one text in the place of another in one file.
fn changed(file: &str, from: &str, to: &str) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for path in ["envoy", "tests/operator"] {
        let to = copy.path().join(path);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        output_of(Command::new("cp").arg("-r").arg(root().join(path)).arg(to));
    }
    let path = copy.path().join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{file}: {from}");
    std::fs::write(path, text.replacen(from, to, 1)).unwrap();
    copy
}

#[test]
fn a_mistake_in_a_manifest_is_found() {
    let Some(python) = tool("DCR_TEST_MANIFESTS") else { return };
    let folder = tempfile::tempdir().unwrap();
    for (file, from, to, found) in [
        ("envoy/kubernetes/store/deployment.yaml", "containerPort: 8443", "containerPorts: 8443", "containerPort"),
        ("envoy/kubernetes/store/deployment.yaml", "=0.0.0.0:8443", "=0.0.0.0:9443", "https is not where it listens"),
        ("envoy/kubernetes/store/deployment.yaml", "replicas: 1", "replicas: 2", "a file"),
        ("envoy/kubernetes/store/service.yaml", "port: 8443", "port: 8444", "service"),
        ("envoy/kubernetes/store/networkpolicy.yaml", "port: https", "port: tls", "network policy"),
        ("envoy/kubernetes/store/kustomization.yaml", "- service.yaml", "", "service.yaml"),
        ("envoy/kubernetes/store-postgresql/deployment.yaml", "value: null", "", "DATABASE_URL"),
        ("envoy/istio/envoyfilter.yaml", "operation: INSERT_FIRST", "operation: INSERT_AT_FIRST", "INSERT_AT_FIRST"),
        (
            "envoy/istio/envoyfilter.yaml",
            "allow_on_headers_stop_iteration: true",
            "",
            "allow_on_headers_stop_iteration",
        ),
        ("envoy/istio/envoyfilter.yaml", "- remove: x-original-url", "- remove: x-original", "early_header_mutation"),
        (
            "envoy/istio/gateway-values.yaml",
            "dcr-edge/gateway: \"true\"",
            "dcr-edge/gateway: \"no\"",
            "keeps its pods out",
        ),
        ("envoy/envoy-gateway/envoypatchpolicy.yaml", "op: add", "op: put", "put"),
        ("envoy/envoy-gateway/envoyproxy.yaml", "mountPath: /etc/dcr-edge/tls", "mountPath: /tls", "is not mounted"),
        ("envoy/docker-compose.yaml", "restart: unless-stopped", "restarts: unless-stopped", "restarts"),
        ("envoy/docker-compose.yaml", "target: tools", "target: tool", "tool"),
    ] {
        let copy = changed(file, from, to);
        let error = check(&python, copy.path(), folder.path());
        assert!(error.as_ref().is_err_and(|error| error.contains(found)), "{file}: {to}: {error:?}");
    }
}

#[test]
fn the_store_has_every_option_that_the_manifests_give_it() {
    let help = output_of(Command::new(store_binary()).args(["serve", "--help"]));
    let deployment = std::fs::read_to_string(root().join("envoy/kubernetes/store/deployment.yaml")).unwrap();
    let options: Vec<&str> = deployment.lines().filter_map(|line| line.trim().strip_prefix("- --")).collect();
    assert!(options.len() >= 6);
    for option in options {
        let name = option.split('=').next().unwrap();
        assert!(help.contains(&format!("--{name} ")), "{name}\n{help}");
    }
}

/// A blob of a layout, by its descriptor; its size and its digest are what that says.
fn blob(layout: &Path, descriptor: &Value) -> Vec<u8> {
    let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    let bytes = std::fs::read(layout.join("blobs/sha256").join(digest)).unwrap();
    assert_eq!(hex::encode(Sha256::digest(&bytes)), digest);
    assert_eq!(descriptor["size"], bytes.len());
    bytes
}

/// Makes an image; gives its config and the path of its one layer.
fn image(kind: &str, layout: &Path, file: &Path) -> (Value, std::path::PathBuf) {
    output_of(Command::new(root().join("envoy/image.sh")).arg(kind).arg(layout).arg(file));
    let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
    assert_eq!(json(&std::fs::read(layout.join("oci-layout")).unwrap())["imageLayoutVersion"], "1.0.0");
    let index = json(&std::fs::read(layout.join("index.json")).unwrap());
    let [descriptor] = index["manifests"].as_array().unwrap().as_slice() else { panic!("{index}") };
    let manifest = json(&blob(layout, descriptor));
    let config = json(&blob(layout, &manifest["config"]));
    let [layer] = manifest["layers"].as_array().unwrap().as_slice() else { panic!("{manifest}") };
    assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
    blob(layout, layer);
    let path = layout.join("blobs/sha256").join(layer["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap());
    let unpacked = process::output(Command::new("gzip").arg("-dc").arg(&path)).stdout;
    assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", hex::encode(Sha256::digest(unpacked))));
    (config, path)
}

fn unpacked(layer: &Path) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut tar = Command::new("tar");
    output_of(tar.args(["--no-same-owner", "-xzf"]).arg(layer).arg("-C").arg(folder.path()));
    folder
}

#[test]
fn the_filters_image_has_the_filter_alone_and_is_the_same_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let wasm = root().join(WASM);
    let (config, layer) = image("filter", &folder.path().join("one"), &wasm);
    let (_, again) = image("filter", &folder.path().join("two"), &wasm);
    assert_eq!(layer.file_name(), again.file_name());
    assert_eq!((&config["os"], &config["architecture"]), (&"linux".into(), &"amd64".into()));
    let files = output_of(Command::new("tar").arg("-tzf").arg(&layer));
    assert_eq!(files.lines().collect::<Vec<_>>(), ["./", "./plugin.wasm"]);
    assert!(std::fs::read(unpacked(&layer).path().join("plugin.wasm")).unwrap() == std::fs::read(wasm).unwrap());
}

#[test]
fn the_stores_image_runs_on_its_own_libraries_as_nobody_special() {
    let folder = tempfile::tempdir().unwrap();
    // Without what a debugger needs of it, which would take a while to pack.
    let binary = folder.path().join("dcr-store");
    output_of(Command::new("objcopy").arg("--strip-all").arg(store_binary()).arg(&binary));
    let (config, layer) = image("store", &folder.path().join("image"), &binary);
    let settings = &config["config"];
    assert_eq!(
        (&settings["User"], &settings["Entrypoint"][0]),
        (&"10001:10001".into(), &"/usr/local/bin/dcr-store".into())
    );
    let image = unpacked(&layer);
    let libraries = output_of(Command::new("find").arg(image.path()).args(["-name", "*.so*", "-type", "f"]));
    let loader = libraries.lines().find(|path| path.contains("/ld-")).unwrap();
    let folders: Vec<&str> = libraries.lines().map(|path| path.rsplit_once('/').unwrap().0).collect();
    let store = image.path().join("usr/local/bin/dcr-store");
    let mut run = Command::new(loader);
    run.args(["--inhibit-cache", "--library-path", &folders.join(":")]).arg(store);
    let database = format!("sqlite://{}", folder.path().join("dcr.db").display());
    output_of(run.args(["--database-url", &database, "tenant", "create", "a", "--domain", "a.example"]));
    let tenants = crate::support::store::runtime().block_on(async {
        let database = dcr_edge::store::open(&database, IfMissing::Refuse).await.unwrap();
        database.tenants().await.unwrap().len()
    });
    assert_eq!(tenants, 1);
    let listed = output_of(Command::new("tar").arg("-tvzf").arg(&layer));
    let owned = |path: &str| listed.lines().find(|line| line.ends_with(path)).unwrap().contains("10001/10001");
    assert!(owned("./var/lib/dcr-edge/") && !owned("./usr/local/bin/dcr-store"), "{listed}");
    assert!(!listed.contains("/bin/sh"), "{listed}");
    let certificates = std::fs::read_to_string(image.path().join("etc/ssl/certs/ca-certificates.crt")).unwrap();
    assert!(certificates.contains("BEGIN CERTIFICATE"));
}
