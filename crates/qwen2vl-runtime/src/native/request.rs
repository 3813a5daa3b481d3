//! One inference request with checked inputs and outputs.

use openvino::{ElementType, InferRequest, Shape, Tensor};

use super::failed;
use crate::Error;

/// An inference request of one compiled model.
pub(crate) struct Request {
    name: &'static str,
    inner: InferRequest,
}

impl Request {
    pub(super) fn new(name: &'static str, inner: InferRequest) -> Self {
        Self { name, inner }
    }

    /// Sets an f32 input that `fill` writes in full.
    pub(crate) fn set_f32<E: From<Error>>(
        &mut self,
        input: &str,
        dims: &[usize],
        fill: impl FnOnce(&mut [f32]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.set(input, ElementType::F32, dims, fill)
    }

    /// Sets an i64 input that `fill` writes in full.
    pub(crate) fn set_i64(
        &mut self,
        input: &str,
        dims: &[usize],
        fill: impl FnOnce(&mut [i64]),
    ) -> Result<(), Error> {
        self.set(input, ElementType::I64, dims, |values| {
            fill(values);
            Ok(())
        })
    }

    /// Sets an i32 input that `fill` writes in full.
    pub(crate) fn set_i32(
        &mut self,
        input: &str,
        dims: &[usize],
        fill: impl FnOnce(&mut [i32]),
    ) -> Result<(), Error> {
        self.set(input, ElementType::I32, dims, |values| {
            fill(values);
            Ok(())
        })
    }

    fn set<T, E: From<Error>>(
        &mut self,
        input: &str,
        element: ElementType,
        dims: &[usize],
        fill: impl FnOnce(&mut [T]) -> Result<(), E>,
    ) -> Result<(), E> {
        let describe = || format!("set input {input:?} of {} with shape {dims:?}", self.name);
        let fail = |e: &openvino::InferenceError| failed(&describe(), e);
        let dims_i64: Vec<i64> = dims.iter().map(|&d| i64::try_from(d).unwrap_or(i64::MAX)).collect();
        let shape = Shape::new(&dims_i64).map_err(|e| fail(&e))?;
        let mut tensor = Tensor::new(element, &shape).map_err(|e| fail(&e))?;
        if dims.iter().all(|&d| d > 0) {
            // The element type was given above, so the view's type is right.
            fill(tensor.get_data_mut::<T>().map_err(|e| fail(&e))?)?;
        }
        self.inner.set_tensor(input, &tensor).map_err(|e| failed(&format!("set input {input:?}"), &e))?;
        Ok(())
    }

    /// Runs the model.
    pub(crate) fn infer(&mut self) -> Result<(), Error> {
        self.inner.infer().map_err(|e| failed(&format!("run {}", self.name), &e))
    }

    /// Reads an f32 output; the view ends before the request can run again.
    pub(crate) fn read_f32<R>(
        &mut self,
        output: &str,
        read: impl FnOnce(&[usize], &[f32]) -> R,
    ) -> Result<R, Error> {
        let action = format!("read output {output:?} of {}", self.name);
        let fail = |e: &openvino::InferenceError| failed(&action, e);
        let tensor = self.inner.get_tensor(output).map_err(|e| fail(&e))?;
        let element = tensor.get_element_type().map_err(|e| fail(&e))?;
        if element != ElementType::F32 {
            return Err(Error::ModelMismatch {
                model: self.name,
                detail: format!("output {output:?} has element type {element}, expected f32"),
            });
        }
        let shape = tensor.get_shape().map_err(|e| fail(&e))?;
        let dims: Vec<usize> =
            shape.get_dimensions().iter().map(|&d| usize::try_from(d).unwrap_or(0)).collect();
        if dims.contains(&0) {
            return Ok(read(&dims, &[]));
        }
        Ok(read(&dims, tensor.get_data::<f32>().map_err(|e| fail(&e))?))
    }
}
