//! What all exchanges of one worker share.

use super::board::{Copies, Keys};
use super::bodies::Bodies;
use super::clients::Clients;
use super::config::Config;
use super::forward::Forwards;
use super::store_call::Repeats;
use super::tally::Refusals;
use super::ticket::Tickets;
use crate::acl::Index;
use crate::request_path::Routes;

/// What all exchanges of one worker share.
#[derive(Debug)]
pub struct Worker {
    /// The filter's configuration.
    pub config: Config,
    /// The value of `authorization` in calls to the store.
    pub authorization: String,
    /// The names of the shared keys.
    pub keys: Keys,
    /// The access rules of the filter's own configuration.
    pub acl: Index,
    /// Which endpoints the paths of hosts of no tenant lead to.
    pub routes: Routes,
    /// Its copy of the settings.
    pub copies: Copies,
    /// What it knows of clients.
    pub clients: Clients,
    /// What it knows of whether it sees bodies.
    pub bodies: Bodies,
    /// The numbers of what it does in the place of requests.
    pub tickets: Tickets,
    /// The registrations that are under way to authorization servers.
    pub forwards: Forwards,
    /// The calls to the store that are repeated.
    pub repeats: Repeats,
    /// What it refused since it reported that last.
    pub refusals: Refusals,
}

impl Worker {
    /// A worker that calls the store with `token`. The error says what is wrong with the token.
    pub fn new(mut config: Config, token: &str) -> Result<Self, &'static str> {
        if token.is_empty() || token.len() > 8_192 || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("the VM's environment variable DCR_EDGE_TOKEN must hold an edge token, \
                        from `dcr-store token --kind edge`");
        }
        let keys = Keys::new(&config.store.cluster, &config.store.authority);
        let acl = Index::new(&std::mem::take(&mut config.network_acls));
        let authorization = format!("Bearer {token}");
        let clients = Clients::new(&config.store);
        let (routes, copies, refusals) = (Routes::default(), Copies::default(), Refusals::default());
        let (tickets, forwards, repeats) = (Tickets::default(), Forwards::default(), Repeats::default());
        let bodies = Bodies::default();
        Ok(Self {
            config,
            authorization,
            keys,
            acl,
            routes,
            copies,
            clients,
            bodies,
            tickets,
            forwards,
            repeats,
            refusals,
        })
    }
}
