import htm from "htm";
import { h } from "preact";

/** Markup of components: `html\`<p>${text}</p>\``. Values are text; nothing is read as markup. */
export const html = htm.bind(h);
