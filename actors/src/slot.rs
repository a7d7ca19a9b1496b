//! Where something stands that comes, goes, and comes back.

use std::sync::Arc;

use arc_swap::{ArcSwapOption, Guard};
use tokio::sync::SetOnce;

/// What is there now, and whether anything ever was.
pub(crate) struct Slot<T> {
    now: ArcSwapOption<T>,
    came: SetOnce<()>,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self {
            now: ArcSwapOption::empty(),
            came: SetOnce::new(),
        }
    }
}

impl<T> Slot<T> {
    pub(crate) fn set(&self, value: T) {
        self.now.store(Some(Arc::new(value)));
        self.never_mind();
    }

    /// Nobody needs to wait: nothing will come, or something has.
    pub(crate) fn never_mind(&self) {
        // Set already where it is not the first one.
        let _ = self.came.set(());
    }

    pub(crate) fn take(&self) -> Option<Arc<T>> {
        self.now.swap(None)
    }

    pub(crate) fn get(&self) -> Guard<Option<Arc<T>>> {
        self.now.load()
    }

    /// Resolves once there has been something, be it gone by now, or nobody needs to wait.
    pub(crate) async fn came(&self) {
        self.came.wait().await;
    }
}
