//! Random JSON schemas that have an instance.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

const NAMES: [&str; 12] =
    ["name", "total", "items", "date", "id", "größe", "is_paid", "address", "x y", "tags", "price", "日付"];
const PATTERNS: [&str; 8] = [
    "^[A-Z]{2}-[0-9]{3,5}$",
    "^(EUR|USD|CHF)$",
    "^[a-z]+(-[a-z]+)*$",
    "^\\d{1,3}\\.\\d{2}$",
    "^.{2,6}$",
    "^[^@ ]+@[^@ ]+\\.[a-z]{2,3}$",
    "END$",
    "^a.*b.*c$",
];
const FORMATS: [&str; 7] = ["date", "time", "date-time", "email", "uuid", "ipv4", "duration"];

pub struct Generator<'a> {
    pub rng: &'a mut ChaCha8Rng,
}

impl Generator<'_> {
    /// A schema; every fourth refers to itself.
    pub fn schema(&mut self) -> Value {
        if self.one_in(4) {
            return self.recursive();
        }
        let depth = self.rng.random_range(1..4);
        self.any(depth)
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.rng.random_range(0..n) == 0
    }

    fn any(&mut self, depth: u32) -> Value {
        let kinds = if depth == 0 { 6 } else { 10 };
        match self.rng.random_range(0..kinds) {
            0 => self.string(),
            1 => self.integer(),
            2 => self.number(),
            3 => json!({ "type": if self.one_in(2) { "boolean" } else { "null" } }),
            4 => self.listed(),
            5 => self.nullable(),
            6 => self.array(depth),
            7 => {
                let options: Vec<Value> =
                    (0..self.rng.random_range(1..4)).map(|_| self.any(depth - 1)).collect();
                json!({ "anyOf": options })
            }
            _ => self.object(depth),
        }
    }

    fn object(&mut self, depth: u32) -> Value {
        let mut properties = Map::new();
        let mut required = Vec::new();
        for _ in 0..self.rng.random_range(0..5) {
            let name = NAMES[self.rng.random_range(0..NAMES.len())];
            let value = self.any(depth - 1);
            if properties.insert(name.to_owned(), value).is_none() && self.one_in(2) {
                required.push(name);
            }
        }
        let mut schema = json!({ "type": "object", "properties": properties, "required": required });
        if !self.one_in(4) {
            schema["additionalProperties"] = json!(false);
        }
        schema
    }

    fn array(&mut self, depth: u32) -> Value {
        let mut schema = json!({ "type": "array", "items": self.any(depth - 1) });
        let least = self.rng.random_range(0..4);
        if self.one_in(2) {
            schema["minItems"] = json!(least);
        }
        if self.one_in(2) {
            schema["maxItems"] = json!(least + self.rng.random_range(0..4));
        }
        schema
    }

    fn string(&mut self) -> Value {
        match self.rng.random_range(0..4) {
            0 => {
                let least = self.rng.random_range(0..20);
                json!({ "type": "string", "minLength": least, "maxLength": least + self.rng.random_range(0..9) })
            }
            1 => json!({ "type": "string", "pattern": PATTERNS[self.rng.random_range(0..PATTERNS.len())] }),
            2 => json!({ "type": "string", "format": FORMATS[self.rng.random_range(0..FORMATS.len())] }),
            _ => json!({ "type": "string" }),
        }
    }

    fn integer(&mut self) -> Value {
        let least: i64 = self.rng.random_range(-2000..2000);
        match self.rng.random_range(0..4) {
            0 => json!({ "type": "integer" }),
            1 => json!({ "type": "integer", "minimum": least }),
            2 => {
                json!({ "type": "integer", "minimum": 0, "maximum": 1000, "multipleOf": self.rng.random_range(1..8) })
            }
            _ => {
                json!({ "type": "integer", "minimum": least, "maximum": least + self.rng.random_range(0..5000) })
            }
        }
    }

    fn number(&mut self) -> Value {
        let least: f64 = f64::from(self.rng.random_range(-100..100)) / 4.0;
        match self.rng.random_range(0..3) {
            0 => json!({ "type": "number" }),
            1 => json!({ "type": "number", "exclusiveMinimum": least, "maximum": least + 7.5 }),
            _ => json!({ "type": "number", "minimum": least }),
        }
    }

    fn listed(&mut self) -> Value {
        let all = [
            json!("red"),
            json!("reddish"),
            json!("\"\\ \n"),
            json!(17),
            json!(null),
            json!({ "a": [1] }),
            json!("<|im_end|>"),
            json!("größer"),
        ];
        if self.one_in(3) {
            return json!({ "const": all[self.rng.random_range(0..all.len())] });
        }
        let from = self.rng.random_range(0..all.len());
        let to = self.rng.random_range(from..all.len());
        json!({ "enum": all[from..=to] })
    }

    fn nullable(&mut self) -> Value {
        let kind = ["string", "integer", "number", "boolean"][self.rng.random_range(0..4)];
        json!({ "type": [kind, "null"] })
    }

    fn recursive(&mut self) -> Value {
        let tree = json!({ "type": "array", "items": { "$ref": "#/$defs/node" },
            "maxItems": self.rng.random_range(1..5) });
        let list = json!({ "anyOf": [{ "$ref": "#/$defs/node" }, { "type": "null" }] });
        let (child, required) = if self.one_in(2) { (tree, true) } else { (list, self.one_in(2)) };
        let mut names = vec!["value"];
        if required {
            names.push("next");
        }
        json!({ "$ref": "#/$defs/node", "$defs": { "node": { "type": "object",
            "properties": { "value": self.any(1), "next": child }, "required": names,
            "additionalProperties": false } } })
    }
}
