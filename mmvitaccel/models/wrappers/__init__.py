"""Config wrappers that put ToMe or Eventful on the module that they build."""
