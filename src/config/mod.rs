//! The configuration file: read, checked as a whole, every mistake reported at once.
use crate::domain::{name::AccessName, secret::Secret};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};
#[derive(Debug)]
pub struct PostgresTarget {
    pub server_name: String,
    pub port: u16,
    pub connect_to: Option<IpAddr>,
    pub databases: Vec<String>,
    pub roles: BTreeMap<AccessName, String>,
    pub admin: Admin,
    pub tls: Arc<rustls::ClientConfig>,
    pub connection_limit: u32,
}
#[derive(Debug)]
pub struct Admin {
    pub user: String,
    pub password: Secret<String>,
    pub database: String,
}
