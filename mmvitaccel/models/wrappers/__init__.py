"""Config wrappers that build a module and attach ToMe, RLT or Eventful to it."""
