//! The table of a scheduler.

use std::ffi::c_void;

use super::method::{Method, base, call, call_mut, instance};
use crate::{
    Evaluation, Event, Group, Progress, Result, SavedState, Scheduler,
    abi::{
        calls,
        growth::{Grows, Place, Theirs},
        tables::{Instance, SchedulerVtable, Status},
    },
    field,
};

/// # Safety
/// As [`Theirs::new`].
unsafe fn read_progress(progress: *const calls::Progress) -> Result<Progress> {
    // SAFETY: the caller's promise.
    let progress = unsafe { Theirs::new(progress) }?;
    Ok(Progress {
        step: progress.get(field!(calls::Progress, step)),
        total_steps: progress.get(field!(calls::Progress, total_steps)),
        steps_per_epoch: progress.get(field!(calls::Progress, steps_per_epoch)),
    })
}

/// # Safety
/// As [`Theirs::new`], and its texts are lent for `'a`.
unsafe fn read_group<'a>(group: *const calls::Group) -> Result<Group<'a>> {
    // SAFETY: the caller's promise.
    unsafe {
        let group = Theirs::new(group)?;
        Ok(Group {
            name: group.get(field!(calls::Group, name)).as_str()?,
            number: group.get(field!(calls::Group, number)) as usize,
            stream: group.get(field!(calls::Group, stream)).as_str()?,
            lr: group.get(field!(calls::Group, lr)),
            momentum: group.get(field!(calls::Group, momentum)),
        })
    }
}

/// # Safety
/// As [`Theirs::new`], and its texts are lent for `'a`.
unsafe fn read_evaluation<'a>(evaluation: *const calls::Evaluation) -> Result<Evaluation<'a>> {
    // SAFETY: the caller's promise.
    unsafe {
        let evaluation = Theirs::new(evaluation)?;
        Ok(Evaluation {
            value: evaluation.get(field!(calls::Evaluation, value)),
            metric: evaluation.get(field!(calls::Evaluation, metric)).as_str()?,
            higher_is_better: evaluation.get(field!(calls::Evaluation, higher_is_better)) != 0,
            task: evaluation.get(field!(calls::Evaluation, task)).as_str()?,
        })
    }
}

struct AsScheduler<S>(S);

impl<S: Scheduler> Method for AsScheduler<S> {
    fn save(&self) -> Result<SavedState> {
        self.0.save()
    }
    fn load(&mut self, state: SavedState) -> Result<()> {
        self.0.load(state)
    }
    fn event(&mut self, _: &Event) -> Result<()> {
        Ok(())
    }
}

pub(crate) fn scheduler<S: Scheduler>(scheduler: S) -> Instance {
    unsafe extern "C" fn rate<S: Scheduler>(
        data: *const c_void,
        progress: *const calls::Progress,
        group: *const calls::Group,
        out: *mut calls::Rate,
    ) -> Status {
        let body = |method: &AsScheduler<S>| {
            // SAFETY: the host lends all three for this call, and the last may be written.
            let (progress, group, mut out) =
                unsafe { (read_progress(progress)?, read_group(group)?, Place::new(out)?) };
            let rate = method.0.rate(&progress, &group)?;
            out.set(field!(calls::Rate, lr), rate.lr);
            out.set(field!(calls::Rate, momentum), rate.momentum);
            #[cfg(feature = "longer-tables")]
            out.set_later(crate::later!(calls::Rate, later), calls::Appended::MINE);
            Ok(())
        };
        // SAFETY: the host passes this instance.
        unsafe { call(data, body) }
    }
    unsafe extern "C" fn on_evaluation<S: Scheduler>(
        data: *mut c_void,
        progress: *const calls::Progress,
        evaluation: *const calls::Evaluation,
    ) -> Status {
        let body = |method: &mut AsScheduler<S>| {
            // SAFETY: the host lends both for this call.
            let (progress, evaluation) = unsafe { (read_progress(progress)?, read_evaluation(evaluation)?) };
            method.0.on_evaluation(&progress, &evaluation)
        };
        // SAFETY: the host passes this instance.
        unsafe { call_mut(data, body) }
    }
    instance(
        AsScheduler(scheduler),
        const {
            &SchedulerVtable {
                base: base::<AsScheduler<S>>(size_of::<SchedulerVtable>()),
                rate: Some(rate::<S>),
                on_evaluation: Some(on_evaluation::<S>),
                ..SchedulerVtable::EMPTY
            }
        },
    )
}
