//! What inputs and outputs a model has, and whether they are those that the engine will set and read.

use std::fmt;

use openvino::{ElementType, InferenceError};

/// A dimension that is not fixed is `None`; an open dimension on either side fits.
pub(crate) type Dims<'a> = &'a [Option<usize>];

/// How an input or output is addressed. Exports agree on names only where a model has several of them: the inputs and
/// outputs that a model has one of have other names in each export, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port<'a> {
    /// The only one.
    Only,
    /// One of several.
    Named(&'a str),
}

impl fmt::Display for Port<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Only => f.write_str("(the only one)"),
            Self::Named(name) => write!(f, "{name:?}"),
        }
    }
}

/// Element types of inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    F32,
    I32,
    I64,
}

impl From<Element> for ElementType {
    fn from(element: Element) -> Self {
        match element {
            Element::F32 => Self::F32,
            Element::I32 => Self::I32,
            Element::I64 => Self::I64,
        }
    }
}

/// Names, element types and shapes of a model's inputs and outputs.
pub(crate) struct Signature {
    inputs: Vec<Found>,
    outputs: Vec<Found>,
}

struct Found {
    name: Option<String>,
    element: ElementType,
    dims: Vec<Option<usize>>,
}

impl Signature {
    pub(super) fn of(model: &openvino::Model) -> Result<Self, InferenceError> {
        let inputs = (0..model.get_inputs_len()?).map(|i| Found::of(&model.get_input_by_index(i)?));
        let outputs = (0..model.get_outputs_len()?).map(|i| Found::of(&model.get_output_by_index(i)?));
        Ok(Self { inputs: inputs.collect::<Result<_, _>>()?, outputs: outputs.collect::<Result<_, _>>()? })
    }

    /// Of a model that the shim has compiled.
    pub(super) fn of_shim(model: &qwen2vl_shim::Model) -> Result<Self, qwen2vl_shim::Error> {
        let all = |ports: Vec<qwen2vl_shim::Port>| ports.into_iter().map(Found::of_port).collect();
        Ok(Self { inputs: all(model.inputs()?), outputs: all(model.outputs()?) })
    }

    /// Checks that exactly these inputs exist.
    pub(crate) fn expect_inputs(&self, want: &[(Port<'_>, Element, Dims<'_>)]) -> Result<(), String> {
        for &(port, element, dims) in want {
            let found = find("input", &self.inputs, port)?;
            found.check_dims("input", dims)?;
            if found.element != element.into() {
                let (got, want) = (found.element, ElementType::from(element));
                return Err(format!("{} has elements of {got}, expected {want}", found.describe("input")));
            }
        }
        let known = |found: &Found| {
            want.iter().any(|(port, ..)| match port {
                Port::Only => true,
                Port::Named(name) => found.name.as_deref() == Some(name),
            })
        };
        match self.inputs.iter().find(|found| !known(found)) {
            Some(found) => {
                Err(format!("it has an {} that this engine does not know", found.describe("input")))
            }
            None => Ok(()),
        }
    }

    /// Checks that this output exists.
    pub(crate) fn expect_output(&self, port: Port<'_>, dims: Dims<'_>) -> Result<(), String> {
        find("output", &self.outputs, port)?.check_dims("output", dims)
    }
}

impl Found {
    fn of(node: &openvino::Node) -> Result<Self, InferenceError> {
        let shape = node.get_partial_shape()?;
        let fixed = |d: &openvino::Dimension| {
            (d.get_min() == d.get_max()).then(|| usize::try_from(d.get_max()).ok()).flatten()
        };
        Ok(Self {
            // A port without a name is an error to OpenVINO.
            name: node.get_name().ok().filter(|name| !name.is_empty()),
            element: node.get_element_type()?,
            dims: shape.get_dimensions().iter().map(fixed).collect(),
        })
    }

    fn of_port(port: qwen2vl_shim::Port) -> Self {
        use qwen2vl_shim::Element::{F32, I32, I64};
        let element = match port.element {
            F32 => ElementType::F32,
            I32 => ElementType::I32,
            I64 => ElementType::I64,
            _ => ElementType::Dynamic,
        };
        Self { name: Some(port.name).filter(|name| !name.is_empty()), element, dims: port.dims }
    }

    fn describe(&self, kind: &str) -> String {
        self.name.as_ref().map_or_else(|| format!("{kind} without a name"), |name| format!("{kind} {name:?}"))
    }

    fn check_dims(&self, kind: &str, want: Dims<'_>) -> Result<(), String> {
        let fits = self.dims.len() == want.len()
            && self.dims.iter().zip(want).all(|(f, w)| f.is_none() || w.is_none() || f == w);
        if fits {
            return Ok(());
        }
        Err(format!("{} has shape {}, expected {}", self.describe(kind), shape(&self.dims), shape(want)))
    }
}

fn find<'a>(kind: &str, have: &'a [Found], port: Port<'_>) -> Result<&'a Found, String> {
    let names = || {
        let names: Vec<&str> = have.iter().map(|f| f.name.as_deref().unwrap_or("(no name)")).collect();
        names.join(", ")
    };
    match (port, have) {
        (Port::Only, [only]) => Ok(only),
        (Port::Only, _) => Err(format!("it has {} {kind}s ({}), expected one", have.len(), names())),
        (Port::Named(name), _) => have
            .iter()
            .find(|f| f.name.as_deref() == Some(name))
            .ok_or_else(|| format!("it has no {kind} {name:?}; its {kind}s are {}", names())),
    }
}

fn shape(dims: Dims<'_>) -> String {
    let dims: Vec<String> =
        dims.iter().map(|d| d.map_or_else(|| "?".to_owned(), |d| d.to_string())).collect();
    format!("[{}]", dims.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(ports: &[(Option<&str>, Dims<'_>)]) -> Vec<Found> {
        let own = |&(name, dims): &(Option<&str>, Dims<'_>)| Found {
            name: name.map(str::to_owned),
            element: ElementType::F32,
            dims: dims.to_vec(),
        };
        ports.iter().map(own).collect()
    }

    fn signature(inputs: &[(Option<&str>, Dims<'_>)]) -> Signature {
        Signature { inputs: found(inputs), outputs: found(inputs) }
    }

    #[test]
    fn signatures_are_compared_with_open_dimensions() {
        let s = signature(&[(Some("x"), &[None, Some(128)])]);
        let x = Port::Named("x");
        for port in [x, Port::Only] {
            assert_eq!(s.expect_inputs(&[(port, Element::F32, &[Some(1), Some(128)])]), Ok(()));
            assert_eq!(s.expect_output(port, &[None, None]), Ok(()));
        }
        let error = |port, element, dims| s.expect_inputs(&[(port, element, dims)]).unwrap_err();
        assert_eq!(
            error(x, Element::F32, &[None, Some(64)]),
            "input \"x\" has shape [?, 128], expected [?, 64]"
        );
        assert_eq!(error(Port::Only, Element::F32, &[None]), "input \"x\" has shape [?, 128], expected [?]");
        assert_eq!(error(x, Element::I64, &[None, None]), "input \"x\" has elements of F32, expected I64");
        assert!(error(Port::Named("y"), Element::F32, &[None]).contains("its inputs are x"));
    }

    #[test]
    fn ports_that_are_not_expected_or_not_alone_are_named() {
        let two = signature(&[(Some("x"), &[None]), (None, &[None])]);
        let error = two.expect_inputs(&[(Port::Named("x"), Element::F32, &[None])]).unwrap_err();
        assert_eq!(error, "it has an input without a name that this engine does not know");
        let error = two.expect_inputs(&[(Port::Only, Element::F32, &[None])]).unwrap_err();
        assert_eq!(error, "it has 2 inputs (x, (no name)), expected one");
        assert_eq!(two.expect_output(Port::Named("x"), &[None]), Ok(()));
        assert!(two.expect_output(Port::Only, &[None]).unwrap_err().contains("2 outputs"));
    }
}
