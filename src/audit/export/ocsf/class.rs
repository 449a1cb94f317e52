//! The classes of [OCSF 1.8.0](https://schema.ocsf.io/1.8.0) that records become, with their activities.

/// A class of events.
#[derive(Debug, PartialEq, Eq)]
pub struct Class {
    pub uid: u32,
    pub name: &'static str,
    pub category_uid: u32,
    pub category: &'static str,
    /// Those that are used here, by number and name; 99 is one that the class has no name for.
    activities: &'static [(u32, &'static str)],
    /// The profile that gives a class without it an `actor`.
    pub profiles: &'static [&'static str],
}

/// An activity that the class has no name for.
pub const OTHER: u32 = 99;

impl Class {
    /// The name of an activity.
    pub fn activity(&self, id: u32) -> Option<&'static str> {
        self.activities.iter().find(|(known, _)| *known == id).map(|(_, name)| *name)
    }
}

const IAM: &str = "Identity & Access Management";
const NETWORK: &str = "Network Activity";
const APPLICATION: &str = "Application Activity";
const HOST: &[&str] = &["host"];

pub static ACCOUNT_CHANGE: Class = Class {
    uid: 3001,
    name: "Account Change",
    category_uid: 3,
    category: IAM,
    activities: &[
        (1, "Create"),
        (2, "Enable"),
        (4, "Password Reset"),
        (5, "Disable"),
        (9, "Lock"),
        (10, "MFA Factor Enable"),
        (11, "MFA Factor Disable"),
    ],
    profiles: &[],
};

pub static AUTHENTICATION: Class = Class {
    uid: 3002,
    name: "Authentication",
    category_uid: 3,
    category: IAM,
    activities: &[(1, "Logon"), (2, "Logoff"), (6, "Preauth")],
    profiles: &[],
};

pub static AUTHORIZE_SESSION: Class = Class {
    uid: 3003,
    name: "Authorize Session",
    category_uid: 3,
    category: IAM,
    activities: &[(1, "Assign Privileges")],
    profiles: &[],
};

pub static ENTITY_MANAGEMENT: Class = Class {
    uid: 3004,
    name: "Entity Management",
    category_uid: 3,
    category: IAM,
    activities: &[
        (1, "Create"),
        (3, "Update"),
        (4, "Delete"),
        (6, "Enroll"),
        (10, "Activate"),
        (11, "Deactivate"),
    ],
    profiles: &[],
};

pub static SSH: Class = Class {
    uid: 4007,
    name: "SSH Activity",
    category_uid: 4,
    category: NETWORK,
    activities: &[(1, "Open"), (2, "Close"), (5, "Refuse"), (6, "Traffic"), (7, "Listen")],
    profiles: HOST,
};

pub static TUNNEL: Class = Class {
    uid: 4014,
    name: "Tunnel Activity",
    category_uid: 4,
    category: NETWORK,
    activities: &[(1, "Open"), (2, "Close")],
    profiles: HOST,
};

pub static DATASTORE: Class = Class {
    uid: 6005,
    name: "Datastore Activity",
    category_uid: 6,
    category: APPLICATION,
    activities: &[(1, "Read"), (3, "Connect"), (4, "Query"), (5, "Write")],
    profiles: &[],
};

pub static FILE_HOSTING: Class = Class {
    uid: 6006,
    name: "File Hosting Activity",
    category_uid: 6,
    category: APPLICATION,
    activities: &[
        (1, "Upload"),
        (2, "Download"),
        (3, "Update"),
        (4, "Delete"),
        (5, "Rename"),
        (6, "Copy"),
        (14, "Open"),
    ],
    profiles: &[],
};

pub static API: Class = Class {
    uid: 6003,
    name: "API Activity",
    category_uid: 6,
    category: APPLICATION,
    activities: &[(1, "Create"), (2, "Read"), (3, "Update"), (4, "Delete")],
    profiles: &[],
};

pub static EVENT_LOG: Class = Class {
    uid: 1008,
    name: "Event Log Activity",
    category_uid: 1,
    category: "System Activity",
    activities: &[(3, "Export"), (5, "Rotate"), (6, "Start"), (7, "Stop"), (8, "Restart")],
    profiles: &[],
};

pub static DETECTION: Class = Class {
    uid: 2004,
    name: "Detection Finding",
    category_uid: 2,
    category: "Findings",
    activities: &[(1, "Create"), (3, "Close")],
    profiles: HOST,
};

/// All of them.
pub static CLASSES: [&Class; 11] = [
    &ACCOUNT_CHANGE,
    &AUTHENTICATION,
    &AUTHORIZE_SESSION,
    &ENTITY_MANAGEMENT,
    &SSH,
    &TUNNEL,
    &DATASTORE,
    &FILE_HOSTING,
    &API,
    &EVENT_LOG,
    &DETECTION,
];
