// Keeps the newest line in sight for who looks at the end of the page.

const NEAR_PX = 120; // from the end of the page

export const nearEnd = () => document.body.scrollHeight - innerHeight - scrollY < NEAR_PX;

// Makes a change to the page, and goes on to its end if that was in sight.
export function follow(change) {
  const near = nearEnd();
  change();
  if (near) scrollTo({top: document.body.scrollHeight, behavior: "instant"});
}
