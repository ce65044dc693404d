// The note that the bundled demo model does not know photographs.

import { element } from "./element.js";

const DEMO = "demo"; // the bundled model's name

/** Return whether a model is the bundled demo; false if its description is unknown. */
export function isDemo(about) {
  return about?.model === DEMO;
}

/** Show the note in `place` if the model is the demo. */
export function showDemoNote(place, about) {
  place.hidden = !isDemo(about);
  if (!place.hidden && !place.childElementCount) {
    place.append(element("demo-words").content.cloneNode(true));
  }
}
