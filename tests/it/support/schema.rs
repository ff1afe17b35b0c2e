//! What a JSON Schema says of a value, for the keywords that ours has. Any other keyword is a panic, so that nothing is
//! passed over.

use serde_json::Value;

/// The first thing that is wrong with it, and where.
pub(crate) fn refused(schema: &Value, value: &Value) -> Option<String> {
    check(schema, schema, value, "").err()
}

fn check(root: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let Value::Object(schema) = schema else { return Ok(()) };
    let wrong = |why: &str| Err(format!("{at}: {why}"));
    for (keyword, says) in schema {
        let list = || says.as_array().unwrap().iter();
        match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" | "default" => {}
            "$ref" => check(root, root.pointer(&says.as_str().unwrap()[1..]).unwrap(), value, at)?,
            "type" => {
                let is = |it: &Value| match it.as_str().unwrap() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "boolean" => value.is_boolean(),
                    "integer" => value.is_i64() || value.is_u64(),
                    "number" => value.is_number(),
                    other => panic!("what is a {other}?"),
                };
                if !(says.is_array() && list().any(is) || says.is_string() && is(says)) {
                    return wrong(&format!("{value} is not of type {says}"));
                }
            }
            "const" if says != value => return wrong(&format!("{value} is not {says}")),
            "enum" if list().all(|it| it != value) => return wrong(&format!("{value} is none of {says}")),
            "const" | "enum" => {}
            "anyOf" | "oneOf" => {
                let good = list().filter(|it| check(root, it, value, at).is_ok()).count();
                if good == 0 || keyword == "oneOf" && good > 1 {
                    return wrong(&format!("{value} is {good} of {keyword}"));
                }
            }
            "minimum" if value.as_f64() < says.as_f64() && value.is_number() => return wrong("too small"),
            "maximum" if value.as_f64() > says.as_f64() => return wrong("too large"),
            "minimum" | "maximum" => {}
            "minItems" if value.as_array().is_some_and(|it| (it.len() as u64) < says.as_u64().unwrap()) => {
                return wrong("too few");
            }
            "uniqueItems"
                if value.as_array().is_some_and(|all| (1..all.len()).any(|it| all[..it].contains(&all[it]))) =>
            {
                return wrong("something is there twice");
            }
            "minItems" | "uniqueItems" => {}
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, says, item, &format!("{at}[{index}]"))?;
                }
            }
            "required" => {
                let missing = |key: &&Value| value.is_object() && value.get(key.as_str().unwrap()).is_none();
                if let Some(key) = list().find(missing) {
                    return wrong(&format!("{key} is missing"));
                }
            }
            "properties" => {
                for (key, inner) in value.as_object().into_iter().flatten() {
                    says.get(key).map_or(Ok(()), |it| check(root, it, inner, &format!("{at}.{key}")))?;
                }
            }
            "additionalProperties" => {
                let known = |key: &str| schema.get("properties").is_some_and(|it| it.get(key).is_some());
                for (key, inner) in value.as_object().into_iter().flatten().filter(|it| !known(it.0)) {
                    if says == false {
                        return wrong(&format!("{key} is not known"));
                    }
                    check(root, says, inner, &format!("{at}.{key}"))?;
                }
            }
            other => panic!("what does {other} mean?"),
        }
    }
    Ok(())
}
