//! The companion of the filter: durable clients, tenant settings and the Management API.

use std::error::Error;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use dcr_edge::store::admin::{self, DomainChange, LinkRequest, RateLimitChange, TokenRequest};
use dcr_edge::store::clock::Clock;
use dcr_edge::store::db::{Database, IfMissing};
use dcr_edge::store::doctor::{self, Places};
use dcr_edge::store::serve::Addresses;
use dcr_edge::store::tls::Files;
use dcr_edge::store::token::jwks::Source;
use dcr_edge::store::token::{ExternalIssuer, IssuerConfig, ListedTokens};
use dcr_edge::store::transfer::{self, ImportedTenant, Outcome, RefusedTenant};
use dcr_edge::store::{self, serve, token, unix_now};
use dcr_edge::tenant::{Domain, Name, RateLimit};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Durable clients, tenant settings, the Management API and the console behind the dcr-edge filter.
#[derive(Parser)]
#[command(name = "dcr-store", version, after_long_help = FIRST_STEPS)]
struct Cli {
    #[command(flatten)]
    database: DatabaseArgs,
    /// How the log, which goes to standard error, is written; RUST_LOG says how much of it
    #[arg(long, env = "DCR_LOG_FORMAT", value_enum, default_value_t, global = true)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

const FIRST_STEPS: &str = "\
First steps, on one machine:

  export DATABASE_URL=sqlite:///var/lib/dcr-edge/dcr.db
  dcr-store tenant create acme --domain login.acme.example
  dcr-store serve &
  export DCR_EDGE_TOKEN=$(dcr-store token --kind edge --ttl 8760h)   # in Envoy's environment
  dcr-store console-link --tenant acme                               # a browser does the rest
  dcr-store doctor --store http://127.0.0.1:8081 --gateway https://login.acme.example

All commands but serve work while the store runs. The database's URL may have a password in it: give it by DATABASE_URL,
arguments are public. `dcr-store help COMMAND` says more of each.";

#[derive(Subcommand)]
enum Command {
    /// Answer the edge and the Management API until SIGTERM or SIGINT
    Serve {
        /// Address and port to listen on; port 0 takes a free one
        #[arg(long, default_value = "127.0.0.1:8081")]
        listen: String,
        /// Be ready (/readyz) only when an edge has put everything in force
        #[arg(long)]
        ready_after_edge: bool,
        /// A file with the tokens of edges, one a line; no others count then. It is read again when it changes
        #[arg(long, env = "DCR_EDGE_TOKENS", value_name = "FILE")]
        edge_tokens: Option<PathBuf>,
        #[command(flatten)]
        tls: TlsArgs,
        #[command(flatten)]
        issuer: IssuerArgs,
    },
    /// Create, show, change or delete a tenant; works while the store runs
    Tenant {
        #[command(subcommand)]
        command: TenantCommand,
    },
    /// Show or rotate the keys that sign tokens; works while the store runs
    Key {
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// Print a token
    Token {
        /// The tenant whose Management API the token opens, or whose clients
        #[arg(long)]
        tenant: Option<Name>,
        /// What the token opens
        #[arg(long, value_enum, default_value_t)]
        kind: TokenKind,
        /// Scopes, separated by spaces [default: all]
        #[arg(long)]
        scope: Option<String>,
        /// How long the token is valid, such as 30m, 24h or 7d
        #[arg(long, default_value = "24h", value_parser = humantime::parse_duration)]
        ttl: Duration,
    },
    /// Print a link that signs a browser in to a tenant's console, once
    ConsoleLink {
        /// The tenant
        #[arg(long)]
        tenant: Name,
        /// Where the browser finds the store
        #[arg(long, default_value = "http://127.0.0.1:8081")]
        url: String,
        /// What may be done there: scopes of the Management API, separated by spaces [default: all]
        #[arg(long)]
        scope: Option<String>,
        /// How long the link is valid
        #[arg(long, default_value = "10m", value_parser = humantime::parse_duration)]
        ttl: Duration,
        /// How long its user is signed in
        #[arg(long, default_value = "8h", value_parser = humantime::parse_duration)]
        session_ttl: Duration,
    },
    /// Copy the database into a new file while the store runs: a consistent state of one moment
    ///
    /// The copy has the keys that sign tokens: keep it as secret as the database. It needs as much room as that
    /// one. Registrations go on; the database's WAL grows by what is written meanwhile. To go back to a copy,
    /// stop the store, move the database with its -wal and -shm away, and put the copy in its place. A copy that is
    /// killed (SIGKILL, power cut) leaves .FILE.partial-NUMBER and .FILE.partial-NUMBER-journal, which the next backup to
    /// the same FILE removes. A database of an older version is copied as it is: make a copy before an upgrade.
    Backup {
        /// Where the copy goes; there must be no such file yet
        file: PathBuf,
    },
    /// Write tenants with all that they have as JSON lines while the store runs: a consistent state of one moment
    ///
    /// Settings, access rules, APIs, connections, clients and client grants are in it; the tenants' logs and the keys
    /// that sign tokens are not: after an import elsewhere tokens have to be made anew. Keep it confidential: it has
    /// the hashes of the clients' secrets, and the options of connections as they are, with secrets that may be in them;
    /// FILE is for its owner only. A tenant whose import is not complete is left out. The database's WAL grows by what is written meanwhile.
    Export {
        /// One tenant only
        #[arg(long)]
        tenant: Option<Name>,
        /// Where it goes, instead of standard output; there must be no such file yet
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Add the tenants of an export to the database while the store runs
    ///
    /// The whole input is checked before anything is written. Then each tenant is taken by itself: what is there with
    /// the same content stays, what is missing is added; ids and dates stay. If something is there with other content,
    /// or is another tenant's, that is told and nothing of the tenant is written, and the command fails in the end.
    /// A new tenant answers for its hosts when all of it is there. After an interruption, import the same file again:
    /// that completes the tenant. Standard input is copied into the database's folder first.
    Import {
        /// What `dcr-store export` wrote [default: standard input]
        file: Option<PathBuf>,
    },
    /// Bring a database of an older version up to date; no older store may use it any more
    Migrate,
    /// Look at a deployment as a gateway and a client would, and say what to do
    ///
    /// Nothing is changed anywhere. What is not named is not looked at; the tenants are looked at in the database, if
    /// that is named. Exits with 1 if something does not work, and with 0 if there are warnings only.
    Doctor {
        /// The store, by its own port, such as http://127.0.0.1:8081
        #[arg(long, value_name = "URL")]
        store: Option<String>,
        /// The gateway, by a host of a tenant, such as https://login.example.com
        #[arg(long, value_name = "URL")]
        gateway: Option<String>,
        /// Envoy's admin port, such as http://127.0.0.1:9901
        #[arg(long, value_name = "URL")]
        envoy_admin: Option<String>,
        /// How the findings are written
        #[arg(long, value_enum, default_value_t)]
        format: LogFormat,
    },
    /// Print the JSON Schema (draft 2020-12) of a configuration
    Schema {
        /// Which
        #[arg(value_enum)]
        of: SchemaOf,
    },
    /// Print what a shell needs to complete commands and options
    ///
    /// bash: dcr-store completions bash > /etc/bash_completion.d/dcr-store
    /// zsh:  dcr-store completions zsh > "${fpath[1]}/_dcr-store"
    /// fish: dcr-store completions fish > ~/.config/fish/completions/dcr-store.fish
    #[command(verbatim_doc_comment)]
    Completions {
        /// Which shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Stand in for an authorization server that is not there yet: discovery and an echo, for trying only
    StubAuthorizationServer {
        /// Address and port to listen on; port 0 takes a free one
        #[arg(long)]
        listen: String,
    },
}

#[derive(Args)]
struct DatabaseArgs {
    /// Where the database is, such as sqlite://dcr.db or postgres://USER@HOST/DATABASE
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, global = true)]
    database_url: Option<String>,
}

impl DatabaseArgs {
    fn url(&self) -> Result<&str, Box<dyn Error>> {
        Ok(self.database_url.as_deref().ok_or("name the database with --database-url or DATABASE_URL")?)
    }

    async fn open(&self, if_missing: IfMissing) -> Result<Arc<dyn Database>, Box<dyn Error>> {
        Ok(store::open(self.url()?, if_missing).await?)
    }
}

#[derive(Subcommand)]
enum TenantCommand {
    /// Create a tenant, with registration disabled
    Create {
        /// Its name: a-z, 0-9 and -
        name: Name,
        /// A host it answers for; the first is canonical
        #[arg(long, required = true)]
        domain: Vec<Domain>,
        #[command(flatten)]
        limit: LimitArgs,
        #[command(flatten)]
        mode: ModeArgs,
    },
    /// List all tenants
    List,
    /// Show one tenant as JSON
    Show {
        /// Its name
        name: Name,
    },
    /// Change a tenant's domains, rate limit or eligibility
    Update {
        /// Its name
        name: Name,
        /// The hosts it answers for from now on, instead of those before
        #[arg(long)]
        domain: Vec<Domain>,
        /// One more host
        #[arg(long)]
        add_domain: Vec<Domain>,
        /// A host it answers for no longer
        #[arg(long)]
        remove_domain: Vec<Domain>,
        #[command(flatten)]
        limit: LimitArgs,
        #[command(flatten)]
        mode: ModeArgs,
    },
    /// Delete a tenant and all its clients, at once
    Delete {
        /// Its name
        name: Name,
    },
}

#[derive(Subcommand)]
enum KeyCommand {
    /// List the keys that check tokens; the first signs
    List,
    /// Sign with a new key from now on; tokens of the key before work on until the next rotation
    Rotate,
}

/// TLS, for edges on other machines.
#[derive(Args)]
struct TlsArgs {
    /// Listen at this address too, with TLS 1.2 or later, for those who show a certificate of --client-ca
    #[arg(long, value_name = "ADDRESS", requires_all = ["tls_certificate", "tls_key", "client_ca"])]
    tls_listen: Option<String>,
    /// The store's certificate for that in PEM, with its chain; the three files are read again when they change
    #[arg(long, value_name = "FILE", requires = "tls_listen")]
    tls_certificate: Option<PathBuf>,
    /// Its private key in PEM
    #[arg(long, value_name = "FILE", requires = "tls_listen")]
    tls_key: Option<PathBuf>,
    /// The authorities, in PEM, of which an edge has to have a certificate
    #[arg(long, value_name = "FILE", requires = "tls_listen")]
    client_ca: Option<PathBuf>,
}

impl TlsArgs {
    fn address(self) -> Option<(String, Files)> {
        let files = Files { certificate: self.tls_certificate?, key: self.tls_key?, client_ca: self.client_ca? };
        Some((self.tls_listen?, files))
    }
}

/// Tokens for the Management API that another than this store signs.
#[derive(Args)]
struct IssuerArgs {
    /// An external issuer of Management API tokens: their iss
    #[arg(long, env = "DCR_TOKEN_ISSUER", value_parser = NonEmptyStringValueParser::new(), requires = "token_jwks")]
    token_issuer: Option<String>,
    /// An audience that its tokens have to name beside that of their tenant, https://DOMAIN/api/v2/
    #[arg(long, env = "DCR_TOKEN_AUDIENCE", value_parser = NonEmptyStringValueParser::new(), requires = "token_issuer")]
    token_audience: Option<String>,
    /// Its public keys, a JWK set: an https URL or a file
    #[arg(long, env = "DCR_TOKEN_JWKS", requires = "token_issuer")]
    token_jwks: Option<Source>,
}

impl IssuerArgs {
    async fn open(self) -> Result<Option<Arc<ExternalIssuer>>, String> {
        let (Some(issuer), Some(jwks)) = (self.token_issuer, self.token_jwks) else { return Ok(None) };
        let config = IssuerConfig { issuer, audience: self.token_audience, jwks };
        Ok(Some(ExternalIssuer::open(config).await?))
    }
}

#[derive(Args)]
struct LimitArgs {
    /// Registration requests that may come at once
    #[arg(long, value_parser = rate)]
    burst: Option<NonZeroU32>,
    /// Registration requests that come back each second
    #[arg(long, value_parser = rate)]
    per_second: Option<NonZeroU32>,
}

#[derive(Args)]
struct ModeArgs {
    /// Whether its owner may choose the permissive mode, in which registrations get no third-party controls [default:
    /// false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    permissive_eligible: Option<bool>,
}

fn rate(text: &str) -> Result<NonZeroU32, String> {
    text.parse().map_err(|_| format!("expected a whole number from 1 to {}", RateLimit::MAX))
}

impl From<LimitArgs> for RateLimitChange {
    fn from(args: LimitArgs) -> Self {
        Self { burst: args.burst, per_second: args.per_second }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum SchemaOf {
    /// That of the filter: the plugin's configuration in Envoy
    Filter,
    /// A tenant's settings: /api/v2/tenants/settings
    Settings,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum LogFormat {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum TokenKind {
    /// The Management API of one tenant
    #[default]
    Management,
    /// The edge's interface, for Envoy
    Edge,
    /// One tenant's clients, for its authorization server: to read and to authenticate them
    Server,
}

impl From<TokenKind> for token::Kind {
    fn from(kind: TokenKind) -> Self {
        match kind {
            TokenKind::Management => Self::Management,
            TokenKind::Edge => Self::Edge,
            TokenKind::Server => Self::Server,
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match cli.log_format {
        LogFormat::Text => log.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().flatten_event(true).with_span_list(false).init(),
    }
    match run(&cli.database, cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dcr-store: {error}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(database: &DatabaseArgs, command: Command) -> Result<(), Box<dyn Error>> {
    let text = match command {
        Command::Serve { listen, ready_after_edge, edge_tokens, tls, issuer } => {
            let edge_tokens = edge_tokens.map(ListedTokens::open).transpose()?;
            let external = issuer.open().await?;
            let url = database.url()?;
            let database = store::open_and_migrate(url, IfMissing::Create).await?;
            if let Some(file) = store::exposed_file(url) {
                let file = file.display();
                tracing::warn!("others than its owner may read {file}, and so sign tokens; run: chmod go-rwx {file}*");
            }
            let keys = store::keys(&*database).await?;
            let addresses = Addresses { clear: listen, tls: tls.address() };
            serve::serve(database, keys, external, edge_tokens, addresses, ready_after_edge).await?;
            return Ok(());
        }
        Command::Doctor { store, gateway, envoy_admin, format } => {
            let places = Places { store, gateway, envoy_admin };
            let database = match database.url() {
                Ok(_) => Some(database.open(IfMissing::Refuse).await?),
                Err(_) => None,
            };
            let findings = doctor::examine(places, database.as_deref()).await;
            if let Some(database) = database {
                database.close().await;
            }
            let text = match format {
                LogFormat::Text => doctor::text(&findings),
                LogFormat::Json => format!("{}\n", serde_json::to_string_pretty(&findings)?),
            };
            io::stdout().write_all(text.as_bytes())?;
            let worst = findings.iter().map(|finding| finding.level).max();
            return if worst == Some(doctor::Level::Failure) { Err("something does not work".into()) } else { Ok(()) };
        }
        Command::Schema { of } => match of {
            SchemaOf::Filter => store::schema::filter()?,
            SchemaOf::Settings => store::schema::settings()?,
        },
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "dcr-store", &mut text);
            String::from_utf8(text)?
        }
        Command::StubAuthorizationServer { listen } => {
            serve::serve_stub_authorization_server(&listen).await?;
            return Ok(());
        }
        Command::Backup { file } => {
            let database = store::open_to_copy(database.url()?).await?;
            // One that is stopped is not closed: that would wait until SQLite is through.
            let copied = stoppable(database.back_up(&file)).await?;
            database.close().await;
            copied?;
            format!("copied the database to {}\n", file.display())
        }
        Command::Export { tenant, output } => {
            let database = database.open(IfMissing::Refuse).await?;
            let text = match output {
                None => {
                    transfer::export(&*database, tenant.as_ref(), &mut BufWriter::new(io::stdout())).await?;
                    String::new()
                }
                Some(file) => {
                    stoppable(transfer::export_to(&*database, tenant.as_ref(), &file)).await??;
                    format!("exported to {}\n", file.display())
                }
            };
            database.close().await;
            text
        }
        Command::Import { file } => {
            let folder = store::folder(database.url()?);
            let cannot_read = |error| format!("cannot read the input: {error}");
            let input = transfer::readable_twice(file.as_deref(), &folder).map_err(cannot_read)?;
            let database = database.open(IfMissing::Create).await?;
            let imported = transfer::import(&*database, &input, Clock::of_this_machine()?.now()).await;
            database.close().await;
            told(&imported?)?
        }
        Command::Migrate => {
            let database = store::open_and_migrate(database.url()?, IfMissing::Refuse).await?;
            database.close().await;
            "the database is up to date\n".to_owned()
        }
        Command::Tenant { command } => {
            let clock = Clock::of_this_machine()?;
            let creates = matches!(command, TenantCommand::Create { .. });
            let database = database.open(if creates { IfMissing::Create } else { IfMissing::Refuse }).await?;
            let text = tenant(&*database, command, clock).await;
            database.close().await;
            text?
        }
        Command::Key { command } => {
            let database = database.open(IfMissing::Refuse).await?;
            let text = key(&*database, command).await;
            database.close().await;
            text?
        }
        Command::ConsoleLink { tenant, url, scope, ttl, session_ttl } => {
            let database = database.open(IfMissing::Refuse).await?;
            let asked = scope.clone();
            let (ttl, session_ttl) = (ttl.as_secs(), session_ttl.as_secs());
            let request = LinkRequest { tenant, url, scope, ttl, session_ttl };
            let text = admin::console_link(&*database, request, unix_now()).await;
            database.close().await;
            let text = text?;
            warn_of_unknown_scopes(asked.as_deref());
            text
        }
        Command::Token { tenant, kind, scope, ttl } => {
            let database = database.open(IfMissing::Refuse).await?;
            let asked = scope.clone();
            let keys = store::keys(&*database).await?;
            let request = TokenRequest { kind: kind.into(), tenant, scope, ttl: ttl.as_secs() };
            let text = admin::mint(&*database, &keys, request, unix_now()).await;
            database.close().await;
            let text = text?;
            warn_of_unknown_scopes(asked.as_deref());
            text
        }
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

/// Says which of a list of scopes open nothing: a word that is misspelt is not found in the token otherwise.
fn warn_of_unknown_scopes(scope: Option<&str>) {
    let unknown: Vec<&str> = scope.map(|scope| token::unknown_scopes(scope).collect()).unwrap_or_default();
    if !unknown.is_empty() {
        let (unknown, known) = (unknown.join(" "), token::MANAGEMENT_SCOPES.join(" "));
        eprintln!("dcr-store: warning: no interface asks for {unknown}; the Management API knows {known}");
    }
}

/// Does `work`, which cleans up when it is dropped, unless the process is asked to stop.
async fn stoppable<T>(work: impl Future<Output = T>) -> Result<T, Box<dyn Error>> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    tokio::select! {
        done = work => Ok(done),
        _ = terminated.recv() => Err("stopped; nothing was made".into()),
        _ = interrupted.recv() => Err("stopped; nothing was made".into()),
    }
}

/// What became of an import. An error if a tenant was refused, of which everything was told.
fn told(outcome: &Outcome) -> Result<String, Box<dyn Error>> {
    let mut text = String::new();
    for ImportedTenant { name, objects, added } in &outcome.imported {
        text.push_str(&format!("imported tenant {name} (objects: {objects}, added: {added})\n"));
    }
    if outcome.refused.is_empty() {
        return Ok(text);
    }
    io::stdout().write_all(text.as_bytes())?;
    for RefusedTenant { conflicts, more, .. } in &outcome.refused {
        for conflict in conflicts {
            eprintln!("dcr-store: {conflict}");
        }
        if *more > 0 {
            eprintln!("dcr-store: … and {more} more");
        }
    }
    let names: Vec<&str> = outcome.refused.iter().map(|tenant| tenant.name.as_str()).collect();
    Err(format!("not imported, and left as they were: {}", names.join(", ")).into())
}

async fn key(database: &dyn Database, command: KeyCommand) -> Result<String, admin::Error> {
    match command {
        KeyCommand::List => admin::list_keys(database).await,
        KeyCommand::Rotate => admin::rotate_key(database, store::new_key(unix_now())?).await,
    }
}

async fn tenant(database: &dyn Database, command: TenantCommand, clock: Clock) -> Result<String, admin::Error> {
    match command {
        TenantCommand::Create { name, domain, limit, mode } => {
            let permissive_eligible = mode.permissive_eligible.unwrap_or_default();
            admin::create(database, name, domain, limit.into(), permissive_eligible).await
        }
        TenantCommand::List => admin::list(database).await,
        TenantCommand::Show { name } => admin::show(database, &name).await,
        TenantCommand::Update { name, domain, add_domain, remove_domain, limit, mode } => {
            let domains = DomainChange { replace: domain, add: add_domain, remove: remove_domain };
            admin::update(database, &name, &domains, limit.into(), mode.permissive_eligible, clock.now()).await
        }
        TenantCommand::Delete { name } => admin::delete(database, &name).await,
    }
}
