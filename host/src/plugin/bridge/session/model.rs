//! The model of the call that is under way, lent to one at a time.

use super::scope::View;
use super::stack::{Access, CALLS, OUTSIDE, innermost};
use crate::adapted::AdaptedModel;
use crate::plugin::ExampleGradients;

/// Puts the model's place back when dropped.
struct Lent(Access);

impl Drop for Lent {
    fn drop(&mut self) {
        CALLS.with_borrow_mut(|calls| {
            if let Some(frame) = calls.frames.last_mut() {
                frame.model = self.0;
            }
        });
    }
}

/// Takes the model out of the innermost session and leaves `stand_in`, so that no second reference can come up meanwhile.
fn lend_model(stand_in: impl FnOnce(Access) -> Access) -> Result<Lent, String> {
    CALLS.with_borrow_mut(|calls| {
        let frame = calls.frames.last_mut().ok_or(OUTSIDE)?;
        let model = frame.model;
        frame.model = stand_in(model);
        Ok(Lent(model))
    })
}

const NO_MODEL: &str = "the model is at hand in `attach` and in events only";

/// Reads the model of the innermost session.
pub(in crate::plugin::bridge) fn with_model<T>(
    body: impl FnOnce(&AdaptedModel, &View) -> Result<T, String>,
) -> Result<T, String> {
    let view = innermost(|frame| frame.view.clone())?;
    let lent = lend_model(|_| Access::None)?;
    match lent.0 {
        Access::None => Err(NO_MODEL.to_owned()),
        // SAFETY: the frame's scope holds the model, and no exclusive reference exists while the frame says shared.
        Access::Shared(model) => body(unsafe { &*model }, &view),
        // SAFETY: the frame's scope holds the model exclusively, and the frame lends it to nobody else meanwhile.
        Access::Exclusive(model) => body(unsafe { &*model }, &view),
    }
}

/// Changes the model of the innermost session.
pub(in crate::plugin::bridge) fn with_model_mut<T>(
    body: impl FnOnce(&mut AdaptedModel, &View) -> Result<T, String>,
) -> Result<T, String> {
    let view = innermost(|frame| frame.view.clone())?;
    let lent = lend_model(|_| Access::None)?;
    match lent.0 {
        Access::None => Err(NO_MODEL.to_owned()),
        Access::Shared(_) => Err("the model cannot change while its gradients are measured".to_owned()),
        // SAFETY: the frame's scope holds the model exclusively, and the frame lends it to nobody else meanwhile.
        Access::Exclusive(model) => body(unsafe { &mut *model }, &view),
    }
}

/// Works with the one who measures gradients of single examples, while the model can be read.
pub(in crate::plugin::bridge) fn with_gradients<T>(
    body: impl FnOnce(&AdaptedModel, &View, &mut dyn ExampleGradients) -> Result<T, String>,
) -> Result<T, String> {
    let (gradients, view) = innermost(|frame| (frame.gradients, frame.view.clone()))?;
    let Some(gradients) = gradients else {
        return Err("gradients of single examples are measured in events only".to_owned());
    };
    let lent = lend_model(|model| match model {
        Access::Exclusive(model) => Access::Shared(model),
        _ => Access::None,
    })?;
    match lent.0 {
        Access::Exclusive(model) => {
            // SAFETY: the frame's scope holds both; nobody else has the model exclusively while it is shared, and a second
            // walk inside the first is refused below because the model is no longer exclusive.
            let (model, gradients) = unsafe { (&*model, &mut **gradients) };
            body(model, &view, gradients)
        }
        Access::Shared(_) => Err("a walk over examples is already under way".to_owned()),
        Access::None => Err(NO_MODEL.to_owned()),
    }
}
