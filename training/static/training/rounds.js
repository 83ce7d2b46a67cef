// Shows what is wrong with the rows of the snapshot that the launch form names, and what each stage
// needs. Without this module the rows stand behind a link, and plans on a page of their own.

// A function that fills a box with what `ask` fetches; the newest asking wins.
function refresher(box, ask, sorry) {
  let asked = 0;
  return async () => {
    const mine = ++asked;
    box.setAttribute("aria-busy", "true");
    try {
      const reply = await ask();
      if (mine !== asked) return;
      if (reply.redirected || !reply.ok) throw new Error(reply.status);
      box.innerHTML = await reply.text(); // our own template: every text in it is escaped
    } catch {
      if (mine === asked) box.textContent = sorry;
    } finally {
      if (mine === asked) box.removeAttribute("aria-busy");
    }
  };
}

const choice = document.querySelector("select[name=snapshot]");
const link = document.getElementById("preflight-link");
const look = refresher(
  document.getElementById("preflight"),
  () => {
    const address = link.dataset.address.replace("/0/", `/${encodeURIComponent(choice.value)}/`);
    link.href = address;
    return fetch(`${address}panel`);
  },
  "The rows could not be looked at just now.",
);
choice.addEventListener("change", look);
look();

const plan = document.getElementById("plan");
const form = plan.closest("form");
const count = refresher(
  plan,
  () => fetch(plan.dataset.address, { method: "POST", body: new FormData(form) }),
  "What it needs could not be counted just now.",
);
let soon = 0;
form.addEventListener("input", () => {
  clearTimeout(soon);
  soon = setTimeout(count, 300);
});
count();
