//! A [`Query`] in Cedar's terms: the request, and the entities it speaks of.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::str::FromStr;

use cedar_policy::{
    Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, ParseErrors, Request,
    RestrictedExpression, Schema,
};

use super::{Action, Detail, Facts, Query, StatementFacts};
use crate::domain::id::PrincipalId;
use crate::domain::principal::Principal;
use crate::domain::target::{Environment, Target, TargetKind};

/// The names that the schema gives to things, parsed once.
#[derive(Debug, Clone)]
pub(super) struct Vocabulary {
    principal: EntityTypeName,
    group: EntityTypeName,
    environment: EntityTypeName,
    target: EntityTypeName,
    action: EntityTypeName,
    bastion: EntityUid,
}

/// Why a query cannot be put: said to whoever asked, so without Cedar's words where possible.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unaskable {
    #[error("`{0}` concerns a target, and none was given")]
    NoTarget(Action),
    #[error("the query does not fit the policies' schema: {0}")]
    Misfit(String),
}

impl Unaskable {
    fn misfit(error: impl std::fmt::Display) -> Self {
        Self::Misfit(error.to_string())
    }
}

impl Vocabulary {
    pub(super) fn new() -> Result<Self, Box<ParseErrors>> {
        let name = |text| EntityTypeName::from_str(text).map_err(Box::new);
        Ok(Self {
            principal: name("Principal")?,
            group: name("Group")?,
            environment: name("Environment")?,
            target: name("Target")?,
            action: name("Action")?,
            bastion: EntityUid::from_type_name_and_id(name("Bastion")?, EntityId::new("sallyport")),
        })
    }

    /// The query as a request; `schema` rejects one that it does not know.
    pub(super) fn request(&self, query: &Query<'_>, schema: &Schema) -> Result<Request, Unaskable> {
        let resource = match query.target {
            Some(target) => uid(&self.target, target.name.as_str()),
            None if concerns_target(query.action) => return Err(Unaskable::NoTarget(query.action)),
            None => self.bastion.clone(),
        };
        Request::new(
            uid(&self.principal, query.principal.id.as_str()),
            self.action(query.action),
            resource,
            context(query).map_err(Unaskable::misfit)?,
            Some(schema),
        )
        .map_err(Unaskable::misfit)
    }

    /// A request that says nothing of the statement that is to be run.
    pub(super) fn request_of_any_statement(&self, query: &Query<'_>) -> Result<Request, Unaskable> {
        let target = query.target.ok_or(Unaskable::NoTarget(query.action))?;
        let access = string(query.access.map_or("", |access| access.as_str()));
        let break_glass = RestrictedExpression::new_bool(query.facts.break_glass);
        let pairs = [("access".to_owned(), access), ("break_glass".to_owned(), break_glass)];
        Request::new(
            uid(&self.principal, query.principal.id.as_str()),
            self.action(query.action),
            uid(&self.target, target.name.as_str()),
            Context::from_pairs(pairs).map_err(Unaskable::misfit)?,
            None,
        )
        .map_err(Unaskable::misfit)
    }

    /// What the request speaks of, added to the schema's `actions`.
    pub(super) fn world(&self, query: &Query<'_>, actions: &Entities) -> Result<Entities, Unaskable> {
        let entities = self.entities(query).map_err(Unaskable::misfit)?;
        actions.clone().add_entities(entities, None).map_err(Unaskable::misfit)
    }

    pub(super) fn action(&self, action: Action) -> EntityUid {
        uid(&self.action, action.as_str())
    }

    fn entities(
        &self,
        query: &Query<'_>,
    ) -> Result<Vec<Entity>, Box<cedar_policy::EntityAttrEvaluationError>> {
        let mut entities = vec![self.principal(query.principal)?];
        match query.target {
            Some(target) => entities.push(self.target(target)?),
            None => entities.push(Entity::new_no_attrs(self.bastion.clone(), HashSet::new())),
        }
        Ok(entities)
    }

    fn principal(
        &self,
        principal: &Principal,
    ) -> Result<Entity, Box<cedar_policy::EntityAttrEvaluationError>> {
        let attributes = HashMap::from([
            ("name".to_owned(), string(principal.name.as_str())),
            ("domain".to_owned(), string(principal.domain.as_str())),
        ]);
        let groups = principal.groups.iter().map(|group| uid(&self.group, group.as_str())).collect();
        Entity::new(uid(&self.principal, principal.id.as_str()), attributes, groups).map_err(Box::new)
    }

    fn target(&self, target: &Target) -> Result<Entity, Box<cedar_policy::EntityAttrEvaluationError>> {
        let environment = uid(&self.environment, target.environment.as_str());
        let accesses = target.accesses.iter().map(|access| string(access.as_str()));
        let groups = |groups: &BTreeSet<crate::domain::name::GroupName>| {
            let members = groups.iter().map(|group| uid(&self.group, group.as_str()));
            RestrictedExpression::new_set(members.map(RestrictedExpression::new_entity_uid))
        };
        let attributes = HashMap::from([
            ("name".to_owned(), string(target.name.as_str())),
            ("kind".to_owned(), string(target.kind.as_str())),
            ("environment".to_owned(), RestrictedExpression::new_entity_uid(environment)),
            ("domain".to_owned(), string(target.domain.as_str())),
            ("accesses".to_owned(), RestrictedExpression::new_set(accesses)),
            ("requesters".to_owned(), groups(&target.requesters)),
            ("approvers".to_owned(), groups(&target.approvers)),
        ]);
        let labels = target.labels.iter().map(|(key, value)| (key.clone(), string(value)));
        Entity::new_with_tags(uid(&self.target, target.name.as_str()), attributes, HashSet::new(), labels)
            .map_err(Box::new)
    }
}

fn context(query: &Query<'_>) -> Result<Context, Box<dyn std::error::Error + Send + Sync>> {
    let Facts { own, break_glass, duration_seconds, quorum } = query.facts;
    let access = string(query.access.map_or("", |access| access.as_str()));
    let long = |value: i64| RestrictedExpression::new_long(value);
    let duration = long(i64::try_from(duration_seconds).unwrap_or(i64::MAX));
    let break_glass = RestrictedExpression::new_bool(break_glass);
    let own = RestrictedExpression::new_bool(own);
    let pairs = match query.action {
        Action::Request => vec![("access", access), ("duration", duration), ("break_glass", break_glass)],
        Action::Activate => vec![
            ("access", access),
            ("duration", duration),
            ("break_glass", break_glass),
            ("people", long(quorum.people.into())),
            ("from_target_domain", long(quorum.from_target_domain.into())),
        ],
        Action::Connect | Action::Shell | Action::Sftp | Action::Agent => {
            vec![("access", access), ("break_glass", break_glass)]
        }
        Action::Exec => {
            let command = if let Detail::Command(command) = query.detail { command } else { "" };
            vec![("access", access), ("break_glass", break_glass), ("command", string(command))]
        }
        Action::Subsystem => {
            let name = if let Detail::Subsystem(name) = query.detail { name } else { "" };
            vec![("access", access), ("break_glass", break_glass), ("name", string(name))]
        }
        Action::Forward | Action::Listen => {
            let (host, port) = match query.detail {
                Detail::Destination { host, port } => (host, port),
                _ => ("", 0),
            };
            vec![
                ("access", access),
                ("break_glass", break_glass),
                ("host", string(host)),
                ("port", long(port.into())),
            ]
        }
        Action::Statement => {
            let mut pairs = vec![("access", access), ("break_glass", break_glass)];
            pairs.extend(statement(query.detail));
            pairs
        }
        Action::Replicate => {
            let says_so = matches!(query.detail, Detail::Replication(true));
            vec![
                ("access", access),
                ("break_glass", break_glass),
                ("replication", RestrictedExpression::new_bool(says_so)),
            ]
        }
        Action::Approve | Action::Deny | Action::Cancel | Action::Revoke | Action::Replay => {
            vec![("own", own)]
        }
        Action::Block | Action::Unblock | Action::Watch | Action::Administer => Vec::new(),
    };
    Ok(Context::from_pairs(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)))?)
}

/// What is known of a statement.
fn statement(detail: Detail<'_>) -> [(&'static str, RestrictedExpression); 5] {
    let nothing = StatementFacts::default();
    let facts = if let Detail::Statement(facts) = detail { facts } else { &nothing };
    let set = |texts: &BTreeSet<String>| RestrictedExpression::new_set(texts.iter().map(|text| string(text)));
    [
        ("known", RestrictedExpression::new_bool(facts.known)),
        ("kinds", set(&facts.kinds)),
        ("tables", set(&facts.tables)),
        ("has_where", RestrictedExpression::new_bool(facts.has_where)),
        ("in_transaction", RestrictedExpression::new_bool(facts.in_transaction)),
    ]
}

/// Whether the action makes no sense without a target.
const fn concerns_target(action: Action) -> bool {
    match action {
        Action::Request
        | Action::Activate
        | Action::Approve
        | Action::Deny
        | Action::Connect
        | Action::Shell
        | Action::Exec
        | Action::Sftp
        | Action::Subsystem
        | Action::Forward
        | Action::Listen
        | Action::Agent
        | Action::Statement
        | Action::Replicate => true,
        Action::Cancel
        | Action::Revoke
        | Action::Block
        | Action::Unblock
        | Action::Replay
        | Action::Watch
        | Action::Administer => false,
    }
}

fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

fn string(text: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(text.to_owned())
}

/// What in a schema does not fit what `question` supplies: a policy checked against
/// such a schema could fail when it is asked.
pub(super) fn misfits(schema: &Schema) -> Vec<String> {
    let (vocabulary, actions, (principal, target)) =
        match (Vocabulary::new(), schema.action_entities(), sample()) {
            (Ok(vocabulary), Ok(actions), Some(sample)) => (vocabulary, actions, sample),
            (Err(error), ..) => return vec![error.to_string()],
            (_, Err(error), _) => return vec![error.to_string()],
            (.., None) => return vec!["the sample query is malformed".to_owned()],
        };
    let mut misfits = Vec::new();
    for action in Action::ALL {
        let on_bastion = Query::new(action, &principal);
        let on_target = Query::new(action, &principal).on(&target);
        let mut queries = Vec::new();
        if action != Action::Administer {
            queries.push(on_target);
        }
        if !concerns_target(action) {
            queries.push(on_bastion);
        }
        for query in queries {
            let fits = vocabulary.request(&query, schema).map_err(|error| error.to_string()).and_then(|_| {
                let entities = vocabulary.entities(&query).map_err(|error| error.to_string())?;
                actions
                    .clone()
                    .add_entities(entities, Some(schema))
                    .map(|_| ())
                    .map_err(|error| cedar_policy::ffi::DetailedError::from(&error).message)
            });
            if let Err(message) = fits {
                misfits.push(format!("action `{action}`: {message}"));
            }
        }
    }
    misfits
}

fn sample() -> Option<(Principal, Target)> {
    let group = ["sample".parse().ok()?];
    let principal = Principal {
        id: PrincipalId::from_random([0; 10]),
        name: "sample".parse().ok()?,
        domain: "sample".parse().ok()?,
        groups: group.clone().into(),
    };
    let target = Target {
        name: "sample".parse().ok()?,
        kind: TargetKind::Postgres,
        environment: Environment::Prod,
        domain: "sample".parse().ok()?,
        labels: [("label".to_owned(), "value".to_owned())].into(),
        accesses: ["sample".parse().ok()?].into(),
        requesters: group.clone().into(),
        approvers: group.into(),
    };
    Some((principal, target))
}
