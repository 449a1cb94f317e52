//! The published attributes of OCSF 1.8.0, as far as they are used here, and whether an event keeps to them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// One attribute.
#[derive(Debug)]
struct Attribute {
    kind: String,
    is_required: bool,
    profile: Option<String>,
    is_deprecated: bool,
    ids: BTreeSet<i64>,
}

/// What an event or an object may and must hold.
#[derive(Debug, Default)]
struct Shape {
    attributes: BTreeMap<String, Attribute>,
    at_least_one: Option<Vec<String>>,
    just_one: Option<Vec<String>>,
}

#[derive(Debug, Default)]
struct Class {
    category: i64,
    name: String,
    activities: BTreeMap<i64, String>,
    shape: Shape,
}

#[derive(Debug, Default)]
pub(crate) struct Schema {
    base: Shape,
    classes: BTreeMap<i64, Class>,
    objects: BTreeMap<String, Shape>,
}

enum Section {
    Base,
    Class(i64),
    Object(String),
}

impl Schema {
    pub(crate) fn published() -> Self {
        let mut schema = Self::default();
        let mut section = Section::Base;
        for line in include_str!("ocsf-1.8.0.txt").lines().filter(|line| !line.starts_with('#')) {
            let words: Vec<&str> = line.split_whitespace().collect();
            match (line.starts_with(' '), &words[..]) {
                (false, ["base"]) => section = Section::Base,
                (false, ["class", uid, category, name @ ..]) => {
                    let (category, name) = (category.parse().unwrap(), name.join(" "));
                    section = Section::Class(uid.parse().unwrap());
                    schema.classes.insert(uid.parse().unwrap(), Class { category, name, ..Class::default() });
                }
                (false, ["object", name]) => {
                    schema.objects.insert((*name).to_owned(), Shape::default());
                    section = Section::Object((*name).to_owned());
                }
                (true, ["activity", id, name @ ..]) => {
                    let Section::Class(uid) = section else { panic!("{line}") };
                    let activities = &mut schema.classes.get_mut(&uid).unwrap().activities;
                    activities.insert(id.parse().unwrap(), name.join(" "));
                }
                (true, ["constraint", what, names]) => {
                    let names = Some(names.split(',').map(str::to_owned).collect());
                    match *what {
                        "at_least_one" => schema.shape(&section).at_least_one = names,
                        "just_one" => schema.shape(&section).just_one = names,
                        _ => panic!("{line}"),
                    }
                }
                (true, [name, kind, requirement, rest @ ..]) => {
                    let find = |key: &str| rest.iter().find_map(|word| word.strip_prefix(key));
                    let ids = find("ids=").map(|ids| ids.split(',').map(|id| id.parse().unwrap()).collect());
                    let attribute = Attribute {
                        kind: (*kind).to_owned(),
                        is_required: *requirement == "required",
                        profile: find("profile=").map(str::to_owned),
                        is_deprecated: rest.contains(&"deprecated"),
                        ids: ids.unwrap_or_default(),
                    };
                    schema.shape(&section).attributes.insert((*name).to_owned(), attribute);
                }
                _ => panic!("{line}"),
            }
        }
        schema
    }

    fn shape(&mut self, section: &Section) -> &mut Shape {
        match section {
            Section::Base => &mut self.base,
            Section::Class(uid) => &mut self.classes.get_mut(uid).unwrap().shape,
            Section::Object(name) => self.objects.get_mut(name).unwrap(),
        }
    }

    pub(crate) fn classes(&self) -> BTreeSet<i64> {
        self.classes.keys().copied().collect()
    }

    /// Everything about an event that the schema does not allow.
    pub(crate) fn faults(&self, event: &Value) -> Vec<String> {
        let mut faults = Vec::new();
        let Some(event) = event.as_object() else { return vec!["it is no object".to_owned()] };
        let number = |key: &str| event.get(key).and_then(Value::as_i64).unwrap_or(-1);
        let uid = number("class_uid");
        let Some(class) = self.classes.get(&uid) else { return vec![format!("class {uid} is not known")] };
        let activity = number("activity_id");
        let mut same = |what: &str, found: &Value, expected: Value| {
            if *found != expected {
                faults.push(format!("{what} is {found} instead of {expected}"));
            }
        };
        let none = Value::Null;
        let of = |key: &str| event.get(key).unwrap_or(&none);
        same("category_uid", of("category_uid"), class.category.into());
        same("class_name", of("class_name"), class.name.clone().into());
        same("type_uid", of("type_uid"), (uid * 100 + activity).into());
        if let Some(name) = class.activities.get(&activity) {
            same("type_name", of("type_name"), format!("{}: {name}", class.name).into());
            // An activity that the class has no name for goes by its own.
            if activity != 99 {
                same("activity_name", of("activity_name"), name.clone().into());
            }
        }
        let profiles = event.get("metadata").and_then(|metadata| metadata.get("profiles"));
        let profiles: Vec<&str> =
            profiles.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let checks = Checks { schema: self, profiles: &profiles };
        checks.object("", event, &[&self.base, &class.shape], &mut faults);
        faults
    }
}

struct Checks<'a> {
    schema: &'a Schema,
    profiles: &'a [&'a str],
}

impl Checks<'_> {
    fn object(&self, path: &str, object: &Map<String, Value>, shapes: &[&Shape], faults: &mut Vec<String>) {
        let applies = |attribute: &Attribute| {
            attribute.profile.as_deref().is_none_or(|profile| self.profiles.contains(&profile))
        };
        for (name, value) in object {
            let path = format!("{path}{name}");
            match shapes.iter().find_map(|shape| shape.attributes.get(name)) {
                None => faults.push(format!("{path} is not in the schema")),
                Some(attribute) if attribute.is_deprecated => faults.push(format!("{path} is deprecated")),
                Some(attribute) if !applies(attribute) => {
                    faults.push(format!("{path} takes the profile {:?}", attribute.profile));
                }
                Some(attribute) => self.value(&path, value, attribute, faults),
            }
        }
        for (name, attribute) in shapes.iter().flat_map(|shape| &shape.attributes) {
            if attribute.is_required && applies(attribute) && !object.contains_key(name) {
                faults.push(format!("{path}{name} is required"));
            }
        }
        let count = |names: &[String]| names.iter().filter(|name| object.contains_key(*name)).count();
        for shape in shapes {
            if shape.at_least_one.as_deref().is_some_and(|names| count(names) == 0) {
                faults.push(format!("{path}: none of {:?}", shape.at_least_one));
            }
            if shape.just_one.as_deref().is_some_and(|names| count(names) != 1) {
                faults.push(format!("{path}: not one of {:?}", shape.just_one));
            }
        }
    }

    fn value(&self, path: &str, value: &Value, attribute: &Attribute, faults: &mut Vec<String>) {
        let (kind, values) = match (attribute.kind.strip_suffix("[]"), value) {
            (Some(kind), Value::Array(values)) => (kind, values.iter().collect()),
            (Some(_), _) => return faults.push(format!("{path} is no list: {value}")),
            (None, value) => (attribute.kind.as_str(), vec![value]),
        };
        for value in values {
            let fits = match kind {
                "json" => true,
                "boolean" => value.is_boolean(),
                "integer" => value.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
                "long" | "timestamp" => {
                    value.is_i64() || value.as_u64().is_some_and(|n| i64::try_from(n).is_ok())
                }
                "port" => value.as_u64().is_some_and(|port| port <= 65_535),
                "ip" => value.as_str().is_some_and(|text| text.parse::<std::net::IpAddr>().is_ok()),
                "string" | "username" | "hostname" | "file_hash" | "file_name" | "file_path"
                | "resource_uid" => value.is_string(),
                _ => match (self.schema.objects.get(kind.trim_matches(['{', '}'])), value.as_object()) {
                    (Some(shape), Some(object)) => {
                        self.object(&format!("{path}."), object, &[shape], faults);
                        true
                    }
                    _ => false,
                },
            };
            if !fits {
                faults.push(format!("{path} is no {kind}: {value}"));
            }
            let id = value.as_i64();
            if !attribute.ids.is_empty() && !id.is_some_and(|id| attribute.ids.contains(&id)) {
                faults.push(format!("{path} is none of the enumeration: {value}"));
            }
        }
    }
}
