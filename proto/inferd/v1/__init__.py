"""Generated messages and stubs of the native API (`make proto`); the `.proto` files beside them are the source."""
