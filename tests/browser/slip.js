// What the check of types must find: nothing promises that an element is there.
document.getElementById("state").textContent = document.valeu
