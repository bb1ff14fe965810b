//! What those who use a log keep beside it, for others in the same process to find.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, RwLock};

type Named = HashMap<String, Arc<dyn Any + Send + Sync>>;

/// Values by their types and names.
#[derive(Debug, Default)]
pub(crate) struct Beside {
    values: RwLock<HashMap<TypeId, Named>>,
}

impl Beside {
    /// Keeps a value, in place of the one of its type that had this name.
    pub(crate) fn keep<T: Any + Send + Sync>(&self, name: &str, value: Arc<T>) {
        if let Ok(mut values) = self.values.write() {
            values.entry(TypeId::of::<T>()).or_default().insert(name.to_owned(), value);
        }
    }

    /// The value of this type with a name.
    pub(crate) fn find<T: Any + Send + Sync>(&self, name: &str) -> Option<Arc<T>> {
        let values = self.values.read().ok()?;
        Arc::clone(values.get(&TypeId::of::<T>())?.get(name)?).downcast().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_by_its_type_and_name() {
        let beside = Beside::default();
        beside.keep("a", Arc::new(1_u8));
        beside.keep("a", Arc::new("one"));
        beside.keep("b", Arc::new(2_u8));
        beside.keep("b", Arc::new(3_u8));
        assert_eq!(beside.find::<u8>("a").as_deref(), Some(&1));
        assert_eq!(beside.find::<&str>("a").as_deref(), Some(&"one"));
        assert_eq!(beside.find::<u8>("b").as_deref(), Some(&3));
        assert_eq!(beside.find::<u16>("b"), None);
    }
}
