"""Checks the manifests of envoy/: python3 manifests.py REPOSITORY FOLDER

Each resource is held to the schema of its kind (tests/operator/schemas), what one names is held to what others have, and
the Envoy configuration that the patches make is written into FOLDER, for an Envoy to judge. Prints the first thing that
is wrong and exits with 1.
"""

import copy
import json
import pathlib
import sys

import jsonschema
import yaml

repository, folder = map(pathlib.Path, sys.argv[1:])
ENVOY = repository / "envoy"
SCHEMAS = repository / "tests/operator/schemas"
HCM = "envoy.filters.network.http_connection_manager"


class Wrong(Exception):
    pass


def need(holds, what):
    if not holds:
        raise Wrong(what)


def schemas():
    kinds = {}
    for path in SCHEMAS.glob("*.json"):
        kinds.update(json.loads(path.read_text()).get("kinds", {}))
    return kinds


KINDS = schemas()
COMPOSE = json.loads((SCHEMAS / "compose.json").read_text())["schema"]


def check(resource, schema, where):
    error = next(jsonschema.Draft202012Validator(schema).iter_errors(resource), None)
    need(error is None, error and f"{where}: {'.'.join(map(str, error.absolute_path))}: {error.message[:300]}")


def check_kind(resource, where):
    need(resource["kind"] in KINDS, f"{where}: there is no schema of {resource['kind']}")
    check(resource, KINDS[resource["kind"]], where)
    name = resource["metadata"]["name"]
    need(name.replace("-", "").isalnum() and name == name.lower(), f"{where}: {name} is no name")


def read(path):
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


# ---- kustomize ----


def merged(base, patch, key="name"):
    """A strategic merge, as far as the overlay uses it."""
    if isinstance(base, dict) and isinstance(patch, dict):
        result = dict(base)
        for name, value in patch.items():
            if value is None:
                result.pop(name, None)
            else:
                list_key = "mountPath" if name == "volumeMounts" else "name"
                result[name] = merged(result[name], value, list_key) if name in result else value
        return result
    if isinstance(base, list) and isinstance(patch, list) and patch and isinstance(patch[0], dict):
        result = list(base)
        for item in patch:
            place = next((n for n, other in enumerate(result) if other.get(key) == item.get(key)), None)
            if item.get("$patch") == "delete":
                need(place is not None, f"nothing is there to delete: {item}")
                del result[place]
            elif place is None:
                result.append(item)
            else:
                result[place] = merged(result[place], item)
        return result
    return patch


def built(directory):
    """What a kustomization makes, by kind; each kind is there once."""
    kustomization = yaml.safe_load((directory / "kustomization.yaml").read_text())
    known = {"apiVersion", "kind", "namespace", "labels", "resources", "patches"}
    need(set(kustomization) <= known, f"{directory}: unknown {set(kustomization) - known}")
    resources, listed = {}, set()
    for name in kustomization["resources"]:
        path = directory / name
        need(path.exists(), f"{directory}: {name} is missing")
        if path.is_dir():
            resources.update(built(path))
            continue
        listed.add(name)
        for resource in read(path):
            check_kind(resource, path.relative_to(repository))
            resources[resource["kind"]] = resource
    for patch in kustomization.get("patches", []):
        listed.add(patch["path"])
        for change in read(directory / patch["path"]):
            kind = change["kind"]
            need(resources[kind]["metadata"]["name"] == change["metadata"]["name"], f"{patch['path']}: of what?")
            if change.get("$patch") == "delete":
                del resources[kind]
            else:
                resources[kind] = merged(resources[kind], change)
                check_kind(resources[kind], f"{directory.name} with {patch['path']}")
    files = {path.name for path in directory.glob("*.yaml")} - {"kustomization.yaml"}
    need(files == listed, f"{directory}: {files ^ listed} listed or there, not both")
    return resources


def check_store(resources, where):
    deployment, service = resources["Deployment"], resources["Service"]
    spec = deployment["spec"]["template"]["spec"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    [container] = spec["containers"]
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        service["spec"]["selector"],
        resources["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        resources["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
    ]
    for selector in selectors:
        need(selector.items() <= labels.items(), f"{where}: {selector} selects no pod of {labels}")
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    arguments = dict(argument.lstrip("-").split("=", 1) for argument in container["args"] if "=" in argument)
    need(ports["http"] == int(arguments["listen"].rsplit(":", 1)[1]), f"{where}: http is not where it listens")
    need(ports["https"] == int(arguments["tls-listen"].rsplit(":", 1)[1]), f"{where}: https is not where it listens")
    for port in service["spec"]["ports"]:
        need(port["targetPort"] in ports and port["port"] == ports[port["targetPort"]], f"{where}: service {port}")
    for rule in resources["NetworkPolicy"]["spec"]["ingress"]:
        for port in rule["ports"]:
            need(port["port"] in ports, f"{where}: network policy {port}")
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        need(container[probe]["httpGet"]["port"] in ports, f"{where}: {probe}")
    volumes = {volume["name"] for volume in spec["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    need(volumes == set(mounts), f"{where}: volumes {volumes}, mounts {mounts}")
    for argument in ("tls-certificate", "tls-key", "client-ca"):
        need(arguments[argument].startswith(mounts["tls"] + "/"), f"{where}: {argument} is not among the secret's files")
    claims = {v["persistentVolumeClaim"]["claimName"] for v in spec["volumes"] if "persistentVolumeClaim" in v}
    has_claim = "PersistentVolumeClaim" in resources
    need(claims == ({resources["PersistentVolumeClaim"]["metadata"]["name"]} if has_claim else set()), f"{where}: {claims}")
    [url] = [variable for variable in container["env"] if variable["name"] == "DATABASE_URL"]
    need(("value" in url) != ("valueFrom" in url), f"{where}: {url}")
    # One file has one writer; with a server all may go one after the other.
    if "value" in url:
        need(url["value"].startswith("sqlite://" + mounts["database"] + "/"), f"{where}: {url} is on no volume")
        need(deployment["spec"]["replicas"] == 1 and deployment["spec"]["strategy"]["type"] == "Recreate", f"{where}: a file")
    else:
        need(deployment["spec"]["replicas"] > 1 and deployment["spec"]["strategy"]["type"] == "RollingUpdate", where)
    need(spec["securityContext"]["runAsNonRoot"] and container["securityContext"]["readOnlyRootFilesystem"], where)
    return container


# ---- Envoy ----


def shipped():
    """The connection manager, the filter and the store's cluster of envoy.yaml."""
    configuration = yaml.safe_load((ENVOY / "envoy.yaml").read_text())
    resources = configuration["static_resources"]
    filters = resources["listeners"][0]["filter_chains"][0]["filters"]
    manager = next(f["typed_config"] for f in filters if f["name"] == HCM)
    wasm = next(f for f in manager["http_filters"] if f["name"] == "dcr_edge")
    cluster = next(c for c in resources["clusters"] if c["name"] == "dcr_store")
    return manager, wasm, cluster


def bare_listener():
    """What a gateway has before the patches."""
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "route_config": {
            "name": "http",
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                {"match": {"prefix": "/"}, "direct_response": {"status": 404}}]}],
        },
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
    }
    chain = {"filters": [{"name": HCM, "typed_config": manager}]}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    return {"name": "http", "address": address, "default_filter_chain": chain}


def added(base, patch):
    """A merge of protobuf messages: lists grow, what is a message merges, the rest is replaced."""
    for name, value in patch.items():
        if isinstance(value, dict) and isinstance(base.get(name), dict):
            added(base[name], value)
        elif isinstance(value, list):
            base[name] = base.get(name, []) + value
        else:
            base[name] = value
    return base


def by_istio(document):
    listener, clusters = bare_listener(), []
    manager = listener["default_filter_chain"]["filters"][0]["typed_config"]
    for patch in document["spec"]["configPatches"]:
        operation, value = patch["patch"]["operation"], copy.deepcopy(patch["patch"]["value"])
        match (patch["applyTo"], operation):
            case ("CLUSTER", "ADD"):
                clusters.append(value)
            case ("NETWORK_FILTER", "MERGE"):
                added(manager, value["typed_config"])
            case ("HTTP_FILTER", "INSERT_FIRST"):
                manager["http_filters"].insert(0, value)
            case ("HTTP_ROUTE", "INSERT_FIRST"):
                manager["route_config"]["virtual_hosts"][0]["routes"].insert(0, value)
            case other:
                raise Wrong(f"envoyfilter.yaml: {other} is not checked")
    return listener, clusters


def by_envoy_gateway(document, gateway):
    listener, clusters = bare_listener(), []
    manager = listener["default_filter_chain"]["filters"][0]["typed_config"]
    names = {f"{gateway['metadata']['namespace']}/{gateway['metadata']['name']}/{l['name']}" for l in gateway["spec"]["listeners"]}
    for patch in document["spec"]["jsonPatches"]:
        kind, operation = patch["type"].rsplit(".", 1)[1], patch["operation"]
        need(operation["op"] == "add", f"envoypatchpolicy.yaml: {operation['op']} is not checked")
        value = copy.deepcopy(operation["value"])
        if kind == "Cluster":
            need(operation["path"] == "" and patch["name"] == value["name"], "envoypatchpolicy.yaml: the cluster")
            clusters.append(value)
            continue
        need(patch["name"] in names, f"envoypatchpolicy.yaml: {patch['name']} is none of {names}")
        target = {"Listener": listener, "RouteConfiguration": manager["route_config"]}[kind]
        *parents, last = operation["path"].lstrip("/").split("/")
        for part in parents:
            target = target[int(part)] if isinstance(target, list) else target[part]
        if isinstance(target, list):
            target.insert(int(last), value)
        else:
            target[last] = value
    return listener, clusters


def check_envoy(listener, clusters, mounts, where):
    manager, wasm, store = shipped()
    ours = listener["default_filter_chain"]["filters"][0]["typed_config"]
    first = ours["http_filters"][0]
    need(first["name"] == "dcr_edge", f"{where}: the filter is not the first")
    plugin, expected = first["typed_config"]["config"], wasm["typed_config"]["config"]
    need(plugin["allow_on_headers_stop_iteration"] is True, f"{where}: without the setting it sees no body")
    for name in ("name", "root_id", "failure_policy", "allow_on_headers_stop_iteration"):
        need(plugin[name] == expected[name], f"{where}: {name}")
    need(plugin["vm_config"]["environment_variables"] == expected["vm_config"]["environment_variables"], where)
    settings, shipped_settings = (json.loads(p["configuration"]["value"]) for p in (plugin, expected))
    for name, value in settings.items():
        need(name == "unknown_hosts" or shipped_settings[name] == value, f"{where}: {name} is another than in envoy.yaml")
    schema = json.loads((ENVOY / "docs/filter.schema.json").read_text())
    for given in (settings, shipped_settings):
        check(given, schema, f"{where}: the filter's configuration")
    need("signal_sources" not in settings, f"{where}: no filter here sets the signals of headers")
    for name in ("normalize_path", "merge_slashes", "path_with_escaped_slashes_action", "generate_request_id",
                 "preserve_external_request_id", "always_set_request_id_in_response", "early_header_mutation_extensions"):
        need(ours.get(name) == manager[name], f"{where}: {name} is another than in envoy.yaml")
    [cluster] = clusters
    for name in set(store) - {"load_assignment", "transport_socket"}:
        need(cluster.get(name) == store[name], f"{where}: the cluster's {name} is another than in envoy.yaml")
    tls, shipped_tls = (c["transport_socket"]["typed_config"]["common_tls_context"] for c in (cluster, store))
    need(tls["tls_params"] == shipped_tls["tls_params"], f"{where}: tls_params")
    for file in (tls["tls_certificates"][0]["certificate_chain"], tls["tls_certificates"][0]["private_key"],
                 tls["validation_context"]["trusted_ca"], plugin["vm_config"]["code"]["local"]):
        need(any(file["filename"].startswith(mount + "/") for mount in mounts), f"{where}: {file} is not mounted")
    address = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
    return address


def write(name, listener, clusters):
    text = json.dumps({"static_resources": {"listeners": [listener], "clusters": clusters}}, indent=1)
    (folder / f"{name}.json").write_text(text)


def main():
    for directory in ("store", "store-postgresql"):
        resources = built(ENVOY / "kubernetes" / directory)
        check_store(resources, directory)
        service, namespace = resources["Service"], "dcr-edge"
        ports = {port["port"] for port in service["spec"]["ports"]}
    host = f"{service['metadata']['name']}.{namespace}.svc.cluster.local"
    policy = resources["NetworkPolicy"]["spec"]["ingress"][0]["from"]
    labels = next(peer["podSelector"]["matchLabels"] for peer in policy if "podSelector" in peer)

    [istio] = read(ENVOY / "istio/envoyfilter.yaml")
    check_kind(istio, "envoyfilter.yaml")
    plugin_config = KINDS["WasmPlugin"]["properties"]["spec"]["properties"]
    need(not any("stop" in name.lower() for name in plugin_config), "a WasmPlugin has a field for it by now: say so")
    [values] = read(ENVOY / "istio/gateway-values.yaml")
    need(labels.items() <= values["labels"].items(), "gateway-values.yaml: the policy keeps its pods out")
    need(istio["spec"]["workloadSelector"]["labels"].items() <= values["labels"].items(), "envoyfilter.yaml: other pods")
    gateways = {"istio": (*by_istio(istio), values["volumeMounts"], values["envVarFrom"])}

    documents = {d["kind"]: d for name in ("envoyproxy", "gateway", "envoypatchpolicy")
                 for d in read(ENVOY / f"envoy-gateway/{name}.yaml")}
    for kind, document in documents.items():
        check_kind(document, kind)
    gateway, proxy = documents["Gateway"], documents["EnvoyProxy"]
    need(gateway["spec"]["infrastructure"]["parametersRef"]["name"] == proxy["metadata"]["name"], "gateway.yaml: of what?")
    need(documents["EnvoyPatchPolicy"]["spec"]["targetRef"]["name"] == gateway["metadata"]["name"], "policy: of what?")
    deployment = proxy["spec"]["provider"]["kubernetes"]["envoyDeployment"]
    need(labels.items() <= deployment["pod"]["labels"].items(), "envoyproxy.yaml: the policy keeps its pods out")
    need({v["name"] for v in deployment["pod"]["volumes"]} == {m["name"] for m in deployment["container"]["volumeMounts"]},
         "envoyproxy.yaml: volumes")
    container = deployment["container"]
    gateways["envoy-gateway"] = (*by_envoy_gateway(documents["EnvoyPatchPolicy"], gateway), container["volumeMounts"],
                                 container["env"])

    for name, (listener, clusters, mounts, variables) in gateways.items():
        address = check_envoy(listener, clusters, [mount["mountPath"] for mount in mounts], name)
        need(address["address"] == host and address["port_value"] in ports, f"{name}: {address} is no {host}")
        need([variable["name"] for variable in variables] == ["DCR_EDGE_TOKEN"], f"{name}: the token")
        write(name, listener, clusters)

    compose = yaml.safe_load((ENVOY / "docker-compose.yaml").read_text())
    check(compose, COMPOSE, "docker-compose.yaml")
    for name, service in compose["services"].items():
        for volume in service.get("volumes", []):
            need(volume.split(":")[0] in compose["volumes"], f"docker-compose.yaml: {name}: {volume}")
        for other in service.get("depends_on", {}):
            need(other in compose["services"], f"docker-compose.yaml: {name} depends on {other}")
        if "build" in service:
            path = ENVOY / service["build"]["context"] / service["build"]["dockerfile"]
            targets = [line.split()[-1] for line in path.read_text().splitlines() if line.startswith("FROM ") and " AS " in line]
            need(service["build"]["target"] in targets, f"docker-compose.yaml: {name}: {targets}")


try:
    main()
except (Wrong, KeyError, ValueError, yaml.YAMLError) as error:
    sys.exit(f"{type(error).__name__}: {error}")
